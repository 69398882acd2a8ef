"""What the mixer is, without torch: its words, its price, its contradictions, and where its module lives."""
