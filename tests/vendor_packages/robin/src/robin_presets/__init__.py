"""Presets of somebody else's: all of the aviary in one model."""
