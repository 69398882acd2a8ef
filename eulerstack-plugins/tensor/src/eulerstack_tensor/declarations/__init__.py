"""What the forms of weights are, without torch."""
