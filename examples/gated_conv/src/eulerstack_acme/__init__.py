"""A gated short convolution for EulerStack."""
