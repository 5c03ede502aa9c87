"""Forward processes, by which data become noise: SDEs, and the chains of which they are the limits."""
