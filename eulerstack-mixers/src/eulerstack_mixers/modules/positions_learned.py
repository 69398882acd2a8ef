"""Learned absolute positions, one vector for each position up to max_seq_len.

Shapes: position_ids (batch, time) -> (batch, time, d_model), added to the token embeddings
Cost:   max_seq_len·d_model parameters
Source: Radford et al. 2019 (GPT-2)
"""

from typing import Any

from torch import nn


class LearnedPositions(nn.Embedding):
    """A table of positions. A position beyond the table is an IndexError of the embedding."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__(config.max_position_embeddings, config.hidden_size)
