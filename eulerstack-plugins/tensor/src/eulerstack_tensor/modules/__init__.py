"""The modules; their source becomes part of exported models."""
