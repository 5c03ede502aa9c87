"""Metrics: what one set of samples scores beside the real data, one number each."""
