"""What each primitive is, without torch: its words, its price, its contradictions, and where its module lives."""
