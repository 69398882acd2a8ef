"""A feed-forward block of somebody else's: a product of two projections."""
