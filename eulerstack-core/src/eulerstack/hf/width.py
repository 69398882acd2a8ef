"""A layer that works at another width than the residual stream.

x ← x + up(layer(h) − h), h = down(x): what the layer adds to its own stream, which begins as a projection of the
model's, is projected back. With two identities for projections that is the layer itself.

    linear   one matrix each way
    conv1d   a causal convolution each way, over WIDTH_TAPS tokens of the row's own, the present one included
    mlp      two matrices each way, GELU between them, at the layer's width

Shapes: down (batch, time, d_model) -> (batch, time, d_out), up the other way
State:  conv1d: the inputs of the last WIDTH_TAPS - 1 tokens of both, (batch, WIDTH_TAPS - 1, d_model + d_out)
Cost:   linear 2·d_model·d_out, conv1d WIDTH_TAPS times that, mlp 2·d_out² more
Source: Nawrot et al. 2022, Hourglass, arXiv:2110.13711; Dai et al. 2020, Funnel-Transformer, arXiv:2006.03236
"""

from typing import Any

import torch
from torch import nn

from eulerstack.hf.slots import WIDTH_TAPS
from eulerstack.hf.tables import ByName


class SizedConfig:
    """A config in which the sizes that depend on the width have other values; all else is the config's own."""

    def __init__(self, config: Any, sizes: dict[str, int]):
        self.config = config
        self.hidden_size = sizes["d_model"]
        self.head_dim = sizes["head_dim"]
        self.intermediate_size = sizes["d_ff"]
        architecture = config.architecture
        self.architecture = {**architecture, "model": {**architecture["model"], **sizes}}

    def __getattr__(self, name: str) -> Any:
        # A copy in the making has nothing yet.
        if name == "config" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.config, name)


class LinearChange(nn.Linear):
    """A matrix."""

    def __init__(self, before: int, after: int, inner: int, role: str):
        super().__init__(before, after, bias=False)
        self.parameter_roles = {"weight": role}

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return super().forward(hidden_states)


class MLPChange(nn.Module):
    """Two matrices with GELU between them."""

    def __init__(self, before: int, after: int, inner: int, role: str):
        super().__init__()
        self.in_proj = nn.Linear(before, inner, bias=False)
        self.out_proj = nn.Linear(inner, after, bias=False)
        self.parameter_roles = {"out_proj.weight": role}

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.out_proj(nn.functional.gelu(self.in_proj(hidden_states)))


class ConvChange(nn.Module):
    """A causal convolution that mixes channels: one matrix (after, WIDTH_TAPS · before) over neighbouring tokens, the
    present one last."""

    def __init__(self, before: int, after: int, inner: int, role: str):
        super().__init__()
        self.taps = nn.Linear(WIDTH_TAPS * before, after, bias=False)
        self.parameter_roles = {"taps.weight": role}

    def forward(
        self,
        hidden_states: torch.Tensor,
        name: str = "",
        layer: Any = None,
        kept: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`layer` is the cache slot that keeps the last inputs under `name`; `kept` (batch, time) is 0 at padding, and
        `sequence_ids` (batch or 1, time) tell packed sequences apart."""
        batch, time, channels = hidden_states.shape
        earlier = WIDTH_TAPS - 1
        order = lengths = None
        if kept is not None:
            # Padding moves behind the row's own tokens, and back at the end.
            order = (kept == 0).to(torch.int8).argsort(dim=1, stable=True)
            lengths = (kept != 0).sum(1)
            hidden_states = rows_at(hidden_states, order)
        previous = None if layer is None else layer.get(name)
        if previous is None:
            previous = hidden_states.new_zeros(batch, earlier, channels)
        extended = torch.cat((previous.to(hidden_states.dtype), hidden_states), dim=1)
        if layer is not None:
            ends = torch.full((batch,), time, device=extended.device) if lengths is None else lengths
            places = ends.unsqueeze(1) + torch.arange(earlier, device=extended.device)
            layer.put(name, rows_at(extended, places))
        heard = [extended[:, start : start + time] for start in range(WIDTH_TAPS)]
        if sequence_ids is not None:
            heard = [states * own for states, own in zip(heard, self.own_sequence(sequence_ids), strict=True)]
        output = self.taps(torch.cat(heard, dim=-1))
        return output if order is None else rows_at(output, order.argsort(dim=1))

    @staticmethod
    def own_sequence(sequence_ids: torch.Tensor) -> list[torch.Tensor]:
        """For each tap whether a token hears one of its own sequence there, (batch or 1, time, 1)."""
        time = sequence_ids.shape[1]
        return [
            (sequence_ids == nn.functional.pad(sequence_ids, (back, 0), value=-1)[:, :time]).unsqueeze(-1)
            for back in range(WIDTH_TAPS - 1, -1, -1)
        ]


def rows_at(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`states` (batch, time, channels) at `places` (batch, count)."""
    return states.gather(1, places.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


# How a layer's width is left and reached.
PROJECTIONS: ByName = {
    "linear": LinearChange,
    "conv1d": ConvChange,
    "mlp": MLPChange,
}


class WidthChange(nn.Module):
    """Both projections of a layer. `slot` is the cache slot that convolutions own, None for other projections."""

    def __init__(self, config: Any, params: dict[str, Any], slot: int | None):
        super().__init__()
        width, inner = config.hidden_size, params["d_out"]
        projection = PROJECTIONS[params["projection"]]
        self.down = projection(width, inner, inner, "hidden")
        self.up = projection(inner, width, inner, "output")
        self.slot = slot

    @staticmethod
    def sized(config: Any, sizes: dict[str, int]) -> SizedConfig:
        """The config that the parts of the layer between both are made from."""
        return SizedConfig(config, sizes)

    def forward(
        self,
        block: Any,
        hidden_states: torch.Tensor,
        past_key_values: Any = None,
        kept_tokens: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The stream (batch, time, d_model) after `block` at the layer's width; what its routing adds to the loss, and
        the load of its experts."""
        layer = None if past_key_values is None or self.slot is None else past_key_values.layers[self.slot]
        beside = {"layer": layer, "kept": kept_tokens, "sequence_ids": sequence_ids} if self.slot is not None else {}
        states = self.down(hidden_states, name="down", **beside)
        output, *routing = block(
            states,
            past_key_values=past_key_values,
            kept_tokens=kept_tokens,
            sequence_ids=sequence_ids,
            **kwargs,
        )
        added = self.up(output - states, name="up", **beside)
        if layer is not None:
            layer.advance(hidden_states.shape[1])
        return hidden_states + added, *routing
