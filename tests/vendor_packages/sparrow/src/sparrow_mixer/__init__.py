"""A mixer of somebody else's: each token and the one before it."""
