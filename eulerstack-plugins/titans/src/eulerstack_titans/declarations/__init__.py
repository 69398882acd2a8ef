"""What the memories are, without torch: their words, prices, contradictions, and where their modules live."""
