"""Where data come from, behind one interface."""
