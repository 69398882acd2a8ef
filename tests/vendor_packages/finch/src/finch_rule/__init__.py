"""A realism rule of somebody else's: names of models are whole words."""
