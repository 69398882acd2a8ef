"""Hyena: gates and long convolutions in turn, with filters that a small MLP computes from positions.

    x_0, …, x_{n-1}, v = short_conv(W_in u)
    v ← h_o * (x_o ⊙ v) + skip_o ⊙ (x_o ⊙ v)  for o = n-1, …, 1
    y = W_out (x_0 ⊙ v)
    h(t) = MLP_sin(t / (L-1), cos(f·2πt / L), -sin(f·2πt / L)) · exp(-decay · |δ| · t / (L-1)), zero for t ≥ L

with n = depth and L = max_seq_len, so a filter depends on the lag alone, never on the length of the input.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  gated_<o>, (batch, tokens, d_model), the gated inputs of each long convolution, at most the last L - 1 tokens;
        projected, (batch, short_conv - 1, (depth + 1)·d_model), what the short convolution still needs; both in the
        model's dtype
Cost:   parameters as declared; O(time · log time) for a whole sequence, O(tokens) for each decoded token
Source: Poli et al. 2023, arXiv:2302.10866, sections 3.1–3.3; form and constants of the authors' standalone operator
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization

# Up to so many new tokens are convolved with the cached ones by the explicit sum; more are worth a transform.
HYENA_DIRECT_TOKENS = 4
# Tokens of a block inside which packed sequences are convolved lag by lag.
HYENA_PACKED_BLOCK = 16


def hyena_fft_length(tokens: int) -> int:
    """The smallest 2^a or 3·2^a that is at least `tokens`."""
    length = 4
    while length < tokens:
        length *= 2
    return 3 * length // 4 if 3 * length // 4 >= tokens else length


def hyena_fft_convolution(inputs: torch.Tensor, taps: torch.Tensor, outputs: int) -> torch.Tensor:
    """Σ_s taps[t - s] ⊙ inputs[s] for the last `outputs` tokens t; taps beyond the given ones are zero.

    Shapes: inputs (batch, time, channels), taps (≤ time, channels) -> (batch, outputs, channels)
    """
    time = inputs.shape[1]
    # What wraps around a transform of this length lands before the tokens that are asked for.
    length = hyena_fft_length(time + outputs)
    spectrum = torch.fft.rfft(inputs.transpose(1, 2), n=length) * torch.fft.rfft(taps.transpose(0, 1), n=length)
    return torch.fft.irfft(spectrum, n=length)[..., time - outputs : time].transpose(1, 2)


def hyena_direct_convolution(inputs: torch.Tensor, reversed_taps: torch.Tensor, outputs: int) -> torch.Tensor:
    """The same as explicit sums, for a few tokens; the last of `reversed_taps` is the tap of lag 0.

    Shapes: inputs (batch, time, channels), reversed_taps (taps, channels) -> (batch, outputs, channels)
    """
    sums = []
    for end in range(inputs.shape[1] - outputs + 1, inputs.shape[1] + 1):
        seen = min(end, reversed_taps.shape[0])
        window = inputs[:, end - seen : end]
        sums.append((window * reversed_taps[reversed_taps.shape[0] - seen :]).sum(dim=1))
    return torch.stack(sums, dim=1)


def hyena_packed_convolution(inputs: torch.Tensor, taps: torch.Tensor, sequence_ids: torch.Tensor) -> torch.Tensor:
    """The same for several sequences in one row, each of which sees itself alone.

    Blocks are joined two by two: a token of the right half hears of the left half only through the one sequence that
    lies across the border. Every shape depends on the length alone, so nothing waits for the device.

    Shapes: inputs (batch, time, channels), taps (≤ time, channels), sequence_ids (batch, time) -> as inputs
    """
    batch, time, channels = inputs.shape
    padded = HYENA_PACKED_BLOCK
    while padded < time:
        padded *= 2
    inputs = nn.functional.pad(inputs, (0, 0, 0, padded - time))
    sequence_ids = nn.functional.pad(sequence_ids, (0, padded - time), value=-1)
    taps = nn.functional.pad(taps, (0, 0, 0, max(0, padded - taps.shape[0])))

    blocks, owners = inputs.unflatten(1, (-1, HYENA_PACKED_BLOCK)), sequence_ids.unflatten(1, (-1, HYENA_PACKED_BLOCK))
    result = blocks * taps[0]
    for lag in range(1, HYENA_PACKED_BLOCK):
        same = (owners[:, :, lag:] == owners[:, :, :-lag]).unsqueeze(-1)
        heard = (taps[lag] * blocks[:, :, :-lag]).masked_fill(~same, 0.0)
        result = result + nn.functional.pad(heard, (0, 0, lag, 0))
    result = result.flatten(1, 2)

    half = HYENA_PACKED_BLOCK
    while half < padded:
        pairs, owners = inputs.unflatten(1, (-1, 2, half)), sequence_ids.unflatten(1, (-1, 2, half))
        left, right = owners[:, :, 0], owners[:, :, 1]
        across = pairs[:, :, 0].masked_fill((left != right[..., :1]).unsqueeze(-1), 0.0).transpose(2, 3)
        spectrum = torch.fft.rfft(taps[: 2 * half].transpose(0, 1), n=2 * half)
        heard = torch.fft.irfft(torch.fft.rfft(across, n=2 * half) * spectrum, n=2 * half)[..., half:].transpose(2, 3)
        heard = heard.masked_fill((right != left[..., -1:]).unsqueeze(-1), 0.0)
        result = result + nn.functional.pad(heard, (0, 0, half, 0)).flatten(1, 2)
        half *= 2
    return result[:, :time]


class HyenaFilter(nn.Module):
    """The filters of one layer, as functions of the lag alone, and the weights of the skip terms.

    Everything is computed in float32 at least, whatever the model is cast to, and follows from the parameters and
    max_seq_len: no buffer is kept, and the input's length decides how many taps are computed, never their values.
    """

    def __init__(self, params: dict[str, Any], d_model: int, max_seq_len: int):
        super().__init__()
        self.filters, self.d_model, self.max_seq_len = params["depth"] - 1, d_model, max_seq_len
        self.features, self.decay = params["filter_emb"], params["filter_decay"]
        hidden = params["filter_hidden"]
        self.input_weight = nn.Parameter(torch.empty(hidden, self.features))
        self.input_bias = nn.Parameter(torch.empty(hidden))
        self.hidden_weight = nn.Parameter(torch.empty(2, hidden, hidden))
        self.hidden_bias = nn.Parameter(torch.empty(2, hidden))
        self.frequency = nn.Parameter(torch.empty(hidden))
        self.output_weight = nn.Parameter(torch.empty(self.filters * d_model, hidden))
        self.skip = nn.Parameter(torch.empty(self.filters, d_model))
        # Taps for decoding, (taps, filters, d_model), the last one that of lag 0, and what they were computed from.
        self.kept_taps: torch.Tensor | None = None
        self.kept_for: tuple[Any, ...] = ()

    def initialize(self, initializer_range: float) -> None:
        """MLP weights as torch's own linear layers have them; filters of energy near 1 over the whole context."""
        for weight, bias in ((self.input_weight, self.input_bias), (self.hidden_weight, self.hidden_bias)):
            bound = weight.shape[-1] ** -0.5
            initialization.uniform_(weight, -bound, bound)
            initialization.uniform_(bias, -bound, bound)
        initialization.constant_(self.frequency, 14.0)
        # Otherwise a filter's energy, and with it the layer's output, would grow with max_seq_len.
        rates = 2 * self.rates("cpu", torch.float32) / max(self.max_seq_len - 1, 1)
        energy = (-torch.expm1(-rates * self.max_seq_len) / -torch.expm1(-rates)) if self.decay else self.max_seq_len
        scale = torch.ones(self.filters * self.d_model) * energy
        deviation = (scale * self.output_weight.shape[-1] / 2).rsqrt().unsqueeze(-1)
        initialization.copy_(self.output_weight, torch.randn(self.output_weight.shape) * deviation)
        initialization.normal_(self.skip)

    def _apply(self, fn: Any, recurse: bool = True) -> "HyenaFilter":
        self.kept_taps = None
        return super()._apply(fn, recurse)

    def rates(self, device: Any, dtype: torch.dtype) -> torch.Tensor:
        """Decay of each filter per max_seq_len - 1 tokens, (filters · d_model)."""
        slow, fast = math.log(100) / 1.5, math.log(100) / 0.3
        return self.decay * torch.linspace(slow, fast, self.filters * self.d_model, dtype=dtype, device=device)

    def forward(self, tokens: int) -> torch.Tensor:
        """The taps of lags 0 … tokens - 1, fewer where max_seq_len ends them; (taps, filters, d_model)."""
        weight = self.output_weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        factory = {"dtype": dtype, "device": weight.device}
        lags = torch.arange(min(tokens, self.max_seq_len), **factory).unsqueeze(-1)
        times = lags / max(self.max_seq_len - 1, 1)
        bands = (self.features - 1) // 2
        steps = torch.linspace(1e-4, bands - 1, bands, **factory)
        # Autocast would compute the filters in its own dtype.
        with torch.autocast(weight.device.type, enabled=False):
            angles = steps * (2 * math.pi * lags / self.max_seq_len)
            states = torch.cat((times, angles.cos(), -angles.sin()), dim=-1)
            frequency = self.frequency.to(dtype)
            layers = [(self.input_weight, self.input_bias), *zip(self.hidden_weight, self.hidden_bias, strict=True)]
            for matrix, bias in layers:
                states = torch.sin(frequency * nn.functional.linear(states, matrix.to(dtype), bias.to(dtype)))
            taps = nn.functional.linear(states, weight.to(dtype)) * torch.exp(-times * self.rates(**factory))
        return taps.unflatten(-1, (self.filters, self.d_model))

    def begin(self, tokens: int | None) -> None:
        """A sequence begins: forgets the kept taps, and computes those that a static cache of `tokens` will need."""
        if not torch.compiler.is_compiling():
            self.kept_taps = None
            if tokens is not None:
                self.reversed_taps(tokens + 1)

    def reversed_taps(self, tokens: int) -> torch.Tensor:
        """At least `tokens` taps where max_seq_len allows, the last one that of lag 0; (taps, filters, d_model).

        Without gradients they are kept for the next token, as they depend on the parameters alone; a parameter that
        changed, and a sequence that begins, have them computed anew.
        """
        tokens, kept = min(tokens, self.max_seq_len), self.kept_taps
        if torch.is_grad_enabled():
            return self(tokens).flip(0)
        if torch.compiler.is_compiling():
            return self(tokens).flip(0) if kept is None or kept.shape[0] < tokens else kept
        # An inference tensor has no version.
        versions = tuple(0 if each.is_inference() else each._version for each in self.parameters())
        if kept is None or self.kept_for != versions or kept.shape[0] < tokens:
            # Room to grow, so that a longer sequence needs new taps seldom.
            kept = self(2 * tokens).flip(0)
            self.kept_taps, self.kept_for = kept, versions
        return kept


class Hyena(nn.Module):
    """Gated long convolutions; a drop-in for attention that sees max_seq_len tokens."""

    parameter_roles = {"out_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.d_model, self.taps = config.hidden_size, params["short_conv"]
        inner = (params["depth"] + 1) * self.d_model
        self.in_proj = nn.Linear(self.d_model, inner)
        self.short_weight = nn.Parameter(torch.empty(inner, self.taps))
        self.short_bias = nn.Parameter(torch.empty(inner))
        self.filter = HyenaFilter(params, self.d_model, config.max_position_embeddings)
        self.out_proj = nn.Linear(self.d_model, self.d_model)

    def initialize(self, initializer_range: float) -> None:
        """The short convolution as torch's own would have it."""
        bound = self.taps**-0.5
        initialization.uniform_(self.short_weight, -bound, bound)
        initialization.uniform_(self.short_bias, -bound, bound)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        cache = None if past_key_values is None else past_key_values.layers[self.layer_idx]
        order = padding = None
        if attention_mask is not None:
            # A convolution counts tokens, so padding moves behind the row's own tokens, and back at the end.
            padding = attention_mask == 0
            order = padding.to(torch.int32).argsort(dim=1, stable=True)
            padding = padding.gather(1, order)
            hidden_states = self._taken(hidden_states, order)
        projected = self.in_proj(hidden_states)
        if padding is not None:
            projected = projected.masked_fill(padding.unsqueeze(-1), 0.0)

        *gates, value = self._short_convolution(projected, padding, cache, sequence_ids).split(self.d_model, dim=-1)
        taps = None
        if cache is None or cache.get("gated_0") is None:
            taps = self.filter(hidden_states.shape[1])
            if cache is not None:
                self.filter.begin(cache.max_cache_len)
        for index, gate in enumerate(reversed(gates[1:])):
            gated = gate * value
            if padding is not None:
                gated = gated.masked_fill(padding.unsqueeze(-1), 0.0)
            value = self._long_convolution(index, gated, taps, padding, cache, sequence_ids)
        if cache is not None:
            cache.advance(hidden_states.shape[1])
        output = self.out_proj(gates[0] * value)
        return output if order is None else self._taken(output, order.argsort(dim=1))

    @staticmethod
    def _taken(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The states at `places`, (batch, chosen), of each row; (batch, chosen, channels)."""
        rows = torch.arange(states.shape[0], device=states.device).unsqueeze(-1) * states.shape[1]
        # Copies whole rows of channels, several times as fast as a gather of single elements.
        return states.flatten(0, 1).index_select(0, (rows + places).flatten()).unflatten(0, places.shape)

    def _short_convolution(
        self, projected: torch.Tensor, padding: torch.Tensor | None, cache: Any, sequence_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """A weighted sum of the last `taps` tokens, channel by channel; (batch, time, (depth + 1) · d_model)."""
        time, earlier = projected.shape[1], self.taps - 1
        previous = None if cache is None else cache.get("projected")
        if previous is None:
            extended = nn.functional.pad(projected, (0, 0, earlier, 0))
        else:
            extended = torch.cat((previous, projected), dim=1)
        result = torch.addcmul(self.short_bias, extended[:, earlier:], self.short_weight[:, 0])
        for lag in range(1, self.taps):
            heard = extended[:, earlier - lag : earlier - lag + time]
            if sequence_ids is not None:
                other = sequence_ids[:, lag:] != sequence_ids[:, :-lag]
                other = nn.functional.pad(other, (min(lag, time), 0), value=True)
                heard = heard.masked_fill(other.unsqueeze(-1), 0.0)
            result = torch.addcmul(result, heard, self.short_weight[:, lag])
        if cache is not None:
            if padding is None:
                last = extended[:, time:]
            else:
                behind = torch.arange(earlier, device=projected.device)
                last = self._taken(extended, (~padding).sum(dim=1, keepdim=True) + behind)
            cache.put("projected", last)
        return result

    def _long_convolution(
        self,
        index: int,
        gated: torch.Tensor,
        taps: torch.Tensor | None,
        padding: torch.Tensor | None,
        cache: Any,
        sequence_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        """Filter `index` over the gated inputs, earlier ones included, plus the skip term; (batch, time, d_model)."""
        time = gated.shape[1]
        # A transform in bfloat16 does not exist, and sums over thousands of tokens need the digits.
        dtype = torch.promote_types(gated.dtype, torch.float32)
        previous = None if cache is None else cache.get(f"gated_{index}")
        extended = gated if previous is None else torch.cat((previous, gated), dim=1)
        precise = extended.to(dtype)
        if taps is not None and sequence_ids is not None:
            mixed = hyena_packed_convolution(precise, taps[:, index].to(dtype), sequence_ids)
        elif taps is not None:
            mixed = hyena_fft_convolution(precise, taps[:, index].to(dtype), time)
        else:
            kept = self.filter.reversed_taps(extended.shape[1])[:, index].to(dtype)
            if time <= HYENA_DIRECT_TOKENS:
                mixed = hyena_direct_convolution(precise, kept, time)
            else:
                mixed = hyena_fft_convolution(precise, kept[-extended.shape[1] :].flip(0), time)
        mixed = mixed + self.filter.skip[index].to(dtype) * precise[:, -time:]
        if cache is not None:
            if padding is not None:
                # Each row's own tokens end where the history ends. Padding, all zeros, comes before them.
                places = torch.arange(extended.shape[1], device=gated.device) - padding.sum(dim=1, keepdim=True)
                extended = self._taken(extended, places % extended.shape[1])
            cache.put_history(f"gated_{index}", extended, self.filter.max_seq_len - 1)
        return mixed.to(gated.dtype)
