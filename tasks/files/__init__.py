"""What stages share: where files lie, how they are written, what code and which machine made them."""
