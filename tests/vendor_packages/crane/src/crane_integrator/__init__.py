"""An integrator of somebody else's: the midpoint rule."""
