"""What is made here in forms that others read: a model, its samples, the card of a data set."""
