"""Training data: `eulerstack.data.prepare` makes packed blocks of tokens from JSON lines. Needs the extra `train`."""
