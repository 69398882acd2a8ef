"""What a training step costs: FLOPs, and memory for weights, gradients and the optimizer's state. Torch-free.

Activations are left out: they depend on the batch, on kernels and on what is recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass

from eulerstack.compiler.cost import ELEMENT_BYTES, ModelCost
from eulerstack.ir.lookup import primitive_of
from eulerstack.ir.types import ModelIR
from eulerstack.plugins.manager import get_registry


@dataclass(frozen=True)
class TrainingCost:
    """The price of training without mixed precision, in bytes and in FLOPs per token.

    flops_per_token    forward, and twice that backward; at most once more forward where checkpointing recomputes
                       layers. Kernels of attention that recompute their scores in the backward pass do more
    weights, gradients  one number each for every parameter, in its own dtype
    optimizer          (least, most) of torch's state: AdamW keeps two numbers for every parameter, Muon one for the
                       matrices that it updates and AdamW two for all others. Which of a primitive's parameters are
                       matrices is known to its module alone: the least takes all for one that may be, which holds
                       exactly for layers without vectors, and the most takes none
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


def certain_bytes(ir: ModelIR, cost: ModelCost) -> int:
    """Bytes of the parameters that Muon takes in no case: norms, and under `hybrid` the tables of tokens."""
    hints, policy = ir.training_hints, ir.compatibility["dtype_policy"]
    parts = [each for each in (cost, cost.drafts) if each is not None]
    norms = sum(each.final_norm + sum(norm.params for layer in each.layers for norm in layer.norms) for each in parts)
    size = ELEMENT_BYTES[ir.model["dtype"]]
    certain = norms * (ELEMENT_BYTES["float32"] if policy == "layered_safe" else size)
    # An entry of optimizer_groups may give Muon a table.
    if hints["optimizer"] == "hybrid" and not any(each["optimizer"] for each in hints["optimizer_groups"]):
        head = primitive_of(get_registry(), "head", ir.head.type)
        own = head.lm_head(ir.head.params) and not ir.embedding["tie_word_embeddings"]
        certain += size * cost.embedding * (2 if own else 1)
    return certain


def training_cost(ir: ModelIR, cost: ModelCost, context: int) -> TrainingCost:
    """The price of training on sequences of `context` tokens."""
    hints = ir.training_hints
    weights = cost.weight_bytes(ir.model["dtype"], ir.compatibility["dtype_policy"])
    passes = 4 if hints["checkpointing"] else 3
    most = 2 * weights
    least = most if hints["optimizer"] == "adamw" else weights + certain_bytes(ir, cost)
    # A head's own layers take part in training alone.
    parts = [each for each in (cost, cost.drafts) if each is not None]
    flops = sum(each.flops_per_token(context, "prefill") for each in parts)
    return TrainingCost(passes * flops, weights, weights, (least, most))
