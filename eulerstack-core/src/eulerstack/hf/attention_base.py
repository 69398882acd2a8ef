"""What a mixer that is attention derives from, so that the model can record its weights."""

from torch import nn


class AttentionBase(nn.Module):
    """A mixer whose forward returns (hidden_states, attention weights or None)."""

    # Whether logits are passed through a softcap, which sdpa can't do.
    softcap: float | None = None
