"""Judging samples: features, the distance between two sets of them, and its floor."""
