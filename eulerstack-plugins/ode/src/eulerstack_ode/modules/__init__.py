"""The module; its source becomes part of exported models."""
