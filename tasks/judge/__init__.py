"""Samples of anybody's beside a data set, by the pipeline's own stages: `python -m tasks.judge`."""
