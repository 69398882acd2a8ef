"""A gated exponential moving average as an EulerStack mixer."""
