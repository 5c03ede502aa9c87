"""Extractors: from data to the features whose distributions are compared."""
