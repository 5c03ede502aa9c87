"""The report's figures of the table and of trainings, one file a figure."""
