"""A memory of somebody else's: a fading sum of what was read."""
