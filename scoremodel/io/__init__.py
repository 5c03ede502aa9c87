"""What lies on disk: whole files, weights, and the state of unfinished work."""
