"""Data sets behind one interface, and the scale on which the models see them."""
