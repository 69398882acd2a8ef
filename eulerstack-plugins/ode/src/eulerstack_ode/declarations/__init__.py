"""What the integrator is, without torch: its words, its price, and where its module lives."""
