"""The recurrences as naive loops, for tests and readers."""
