"""A namespace of somebody else's: linear layers of a low rank."""
