"""The report, and the pictures and figures that it shows; `python -m tasks.report` is the stage."""
