"""Multi-token prediction of one token sequence, written out position by position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Branch = Callable[[Tensor], Tensor]


def drafted_hidden_states(
    hidden_states: Tensor,
    embeddings: Tensor,
    depth: int,
    projection: Tensor,
    embedding_norm: Branch,
    hidden_norm: Branch,
    layers: Branch,
) -> Tensor:
    """Hidden states (time − depth, width) of module `depth`; `layers` ends with a norm.

    They are made of those of the module before it, of which there is one more or as many as tokens, and of the
    embeddings (time, width) of the sequence.
    """
    width = embeddings.shape[-1]
    read_embedding, read_hidden = projection[:, :width], projection[:, width:]
    rows = [
        read_embedding @ embedding_norm(embeddings[place + depth]) + read_hidden @ hidden_norm(hidden_states[place])
        for place in range(len(embeddings) - depth)
    ]
    return layers(torch.stack(rows))


def multi_token_loss(
    main: Sequence[Tensor], further: Sequence[Sequence[Tensor]], labels: Tensor, weight: float
) -> Tensor:
    """The training loss from the logits of every position: of the head, and of each module in turn.

    A label of −100 is nobody's target. Every loss is divided by the number of targets that the head has.
    """
    count = sum(1 for label in labels[1:].tolist() if label != -100)

    def loss(logits: Sequence[Tensor], distance: int) -> Tensor:
        total = torch.zeros((), dtype=main[0].dtype)
        for place, scores in enumerate(logits):
            target = int(labels[place + distance]) if place + distance < len(labels) else -100
            if target != -100:
                total = total - (scores[target] - scores.logsumexp(-1))
        return total / count

    modules = [loss(logits, depth + 2) for depth, logits in enumerate(further)]
    return loss(main, 1) + weight / len(modules) * sum(modules[1:], modules[0])
