"""What a training step costs: FLOPs, and memory for weights, gradients and the optimizer's state. Torch-free.

Activations are left out: they depend on the batch, on kernels and on what is recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass

from eulerstack.compiler.cost import ModelCost
from eulerstack.ir.types import ModelIR


@dataclass(frozen=True)
class TrainingCost:
    """The price of training without mixed precision, in bytes and in FLOPs per token.

    flops_per_token    forward, and twice that backward; at most once more forward where checkpointing recomputes
                       layers. Kernels of attention that recompute their scores in the backward pass do more
    weights, gradients  one number each for every parameter, in its own dtype
    optimizer          (least, most) of torch's state: AdamW keeps two numbers for every parameter, Muon one for the
                       matrices that it updates and AdamW two for all others
    """

    flops_per_token: float
    weights: int
    gradients: int
    optimizer: tuple[int, int]

    @property
    def total(self) -> tuple[int, int]:
        """(least, most) bytes of all three together."""
        least, most = (self.weights + self.gradients + state for state in self.optimizer)
        return least, most


def training_cost(ir: ModelIR, cost: ModelCost, context: int) -> TrainingCost:
    """The price of training on sequences of `context` tokens."""
    hints = ir.training_hints
    weights = cost.weight_bytes(ir.model["dtype"], ir.compatibility["dtype_policy"])
    passes = 4 if hints["checkpointing"] else 3
    state = (2 if hints["optimizer"] == "adamw" else 1, 2)
    least, most = (numbers * weights for numbers in state)
    # A head's own layers take part in training alone.
    parts = [each for each in (cost, cost.drafts) if each is not None]
    flops = sum(each.flops_per_token(context, "prefill") for each in parts)
    return TrainingCost(passes * flops, weights, weights, (least, most))
