"""`params.yaml`: its schema, its defaults, its presets, and the small files that stages depend on."""
