"""Side-by-side measurements against peers; each prints what it measured on the machine it ran on."""
