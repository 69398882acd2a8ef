"""Several mixers side by side, between which a selector decides for each token.

For the logits z = W x of a token's input x, in float32 at least, s = softmax(z) are the branches' shares, and the token
becomes y = Σ_b s_b · mixer_b(x). With `top_k` the sum goes over the branches of the k largest shares alone, each
weighted by its share among all of them, so that the choice has a gradient even where k is 1, and k = all branches is
the learned gate.

Every branch reads every token: its keys, values or recurrent state are those of the whole sequence, whichever tokens
chose it. So what a token finds in a branch depends on the tokens before it and not on their choices, and a cache holds
for each branch what that mixer alone would hold.

Shapes: (batch, time, d_model) -> (batch, time, d_model)
State:  one cache slot a branch
Cost:   branches·d_model for the selector, and the branches themselves, all of which are computed for every token
Source: the router is that of sparsely gated experts, Shazeer et al. 2017, arXiv:1701.06538, with the shares of the
        chosen as they are: Switch Transformers, Fedus et al. 2021, arXiv:2101.03961, equation 2
"""

from typing import Any

import torch
from torch import nn

from eulerstack.hf.primitives import primitive_class
from eulerstack.hf.usage_probe import usage_probe


class BranchSelector(nn.Module):
    """Weighs the branches for each token."""

    parameter_roles = {"weight": "router"}

    def __init__(self, width: int, branches: int, top_k: int):
        super().__init__()
        self.top_k = top_k
        self.weight = nn.Parameter(torch.empty(branches, width))

    def initialize(self, initializer_range: float) -> None:
        nn.init.normal_(self.weight, mean=0.0, std=initializer_range)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, time, d_model) -> shares (batch, time, branches), and 1 where a branch is chosen, 0 elsewhere."""
        precise = torch.promote_types(hidden_states.dtype, torch.float32)
        shares = nn.functional.linear(hidden_states.to(precise), self.weight.to(precise)).softmax(-1)
        if self.top_k == shares.shape[-1]:
            return shares, torch.ones_like(shares)
        chosen = shares.topk(self.top_k, dim=-1).indices
        return shares, torch.zeros_like(shares).scatter(-1, chosen, 1.0)


class Branched(nn.Module):
    """The branches, each a mixer with a cache slot of its own, and the selector."""

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        branches, selector = params["branches"], params["selector"]
        self.names = list(branches)
        for slot, (name, branch) in enumerate(branches.items(), layer_idx):
            self.add_module(f"branch_{name}", primitive_class("mixer", branch)(config, branch["params"], slot))
        top_k = selector["top_k"] if selector["type"] == "top_k" else len(branches)
        self.selector = BranchSelector(config.hidden_size, len(branches), top_k)
        # Tells branches apart by their outputs, where the spec asks for it.
        self.usage_probe = usage_probe(config, len(branches))

        # Branches that add to the loss themselves.
        self.reporting = [name for name, branch in branches.items() if branch.get("routes")]

    def begin(self, kept: torch.Tensor | None, token_ids: Any = None, sequence_ids: Any = None) -> None:
        """`kept` (batch, time) is 0 at padding, which counts in no loss."""
        if self.usage_probe is not None:
            self.usage_probe.begin(kept)
        for name in self.reporting:
            self.get_submodule(f"branch_{name}").begin(kept, token_ids, sequence_ids)

    def finish(self) -> tuple[torch.Tensor | None, None]:
        """While training: what the probe and the branches add to the loss."""
        losses = [self.get_submodule(f"branch_{name}").finish()[0] for name in self.reporting]
        if self.usage_probe is not None:
            losses.append(self.usage_probe.finish())
        found = [loss for loss in losses if loss is not None]
        return sum(found) if found else None, None

    def forward(
        self, hidden_states: torch.Tensor, position_embeddings: Any, attention_mask: Any, **kwargs: Any
    ) -> torch.Tensor:
        """`position_embeddings` and `attention_mask` hold one entry a branch."""
        shares, chosen = self.selector(hidden_states)
        weights = (shares * chosen).to(hidden_states.dtype).split(1, dim=-1)
        mixed = torch.zeros_like(hidden_states)
        for index, name in enumerate(self.names):
            branch = self.get_submodule(f"branch_{name}")
            rotation, mask = position_embeddings[index], attention_mask[index]
            output = branch(hidden_states, position_embeddings=rotation, attention_mask=mask, **kwargs)
            # Attention returns its weights too.
            output = output[0] if isinstance(output, tuple) else output
            if self.training and self.usage_probe is not None:
                rows = torch.arange(output[..., 0].numel(), device=output.device)
                unit = torch.full_like(rows, index)
                self.usage_probe.read(output.flatten(0, -2), unit, rows, chosen[..., index].flatten())
            mixed = mixed + weights[index] * output
        return mixed
