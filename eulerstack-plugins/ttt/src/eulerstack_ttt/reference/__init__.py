"""The recurrence as a naive loop, for tests and readers."""
