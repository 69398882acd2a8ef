"""Small specs, without torch: those of the conformance kit."""

from eulerstack.testing.specs import VOCAB, changed, tiny_spec

__all__ = ["VOCAB", "changed", "tiny_spec"]
