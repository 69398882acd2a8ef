"""The solution of a linear ODE, for tests and readers."""
