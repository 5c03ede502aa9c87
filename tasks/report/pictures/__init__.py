"""Pictures of arrays that stages leave to be seen, one file a kind."""
