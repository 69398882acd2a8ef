"""The text of a spec: YAML to data that knows its places, `let` and expressions."""
