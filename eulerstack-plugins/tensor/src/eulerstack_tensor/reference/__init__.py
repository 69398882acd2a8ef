"""The networks contracted index by index, for tests and readers."""
