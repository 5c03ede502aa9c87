"""The stages of the pipeline, one module each: `python -m tasks.train …`; paths and params in, files out."""
