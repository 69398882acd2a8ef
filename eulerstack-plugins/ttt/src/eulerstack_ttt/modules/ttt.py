"""Test-time training: each head's state is a small model, trained on the tokens while the layer reads them.

With q, k, v the projections of a token and f the inner model (k W + b, or two such layers with a gelu between them):

    ℓ(W; k, v) = ½ ‖LN(f(k; W)) − (v − k)‖²            o = q + LN(f(q; W_t))         y = W_O LN(o)

Mini-batches (sgd, one step): all tokens of a mini-batch take their gradients at its first fast weights W₀, and token i
(from 0) reads W_i = W₀ − τ_i Σ_{j ≤ i} r_j ∇ℓ_j(W₀), where τ_i = max(1 / (i + 1) + learned_i, 0) and
r_j = inner_lr · σ(θ·x_j + c) / head_dim. Products of queries with that sum need no W_i: that is the dual form.
Token by token (adamw, or several steps): every step is taken at the newest fast weights, at the rate τ_0 · r_t, which
for adamw is not divided by head_dim, because adamw's steps do not grow with it. adamw is
m ← β₁ m + (1 − β₁) g, s ← β₂ s + (1 − β₂) g², W ← W − rate · (m̂ / √(ŝ + 1e-6) + 0.01 W) with the corrected m̂ and ŝ;
the small number stands under the root, so that the outer gradient exists where an inner one is zero.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  weight_l, bias_l of every layer l of the inner model, (batch, heads, in, out) and (batch, heads, 1, out); with a
        mini-batch over 1 their accumulated gradients, with adamw their moments, all in float32 (float64 for float64
        inputs); tokens (batch,), how many the sequence has had, where a mini-batch or adamw needs it
Source: Sun et al. 2024, arXiv:2407.04620, section 2 and appendix A; adamw, arXiv:1711.05101
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.mini_batches import (
    flags_into_mini_batches,
    into_mini_batches,
    mini_batch_targets,
    places_in_sequence,
)
from eulerstack.hf.parameter_lists import NormalParameters, ZeroParameters

TTT_BETAS = (0.9, 0.999)
TTT_EPSILON = 1e-6
TTT_WEIGHT_DECAY = 0.01


class TTTInnerModel:
    """The fast weights of all heads as one batched model, and its gradients written out.

    Shapes: weights[l] (batch, heads, in, out), biases[l] (batch, heads, 1, out); inputs (batch, heads, tokens, in)
    """

    def __init__(self, norm_weight: torch.Tensor, norm_bias: torch.Tensor, eps: float):
        self.norm_weight, self.norm_bias, self.eps = norm_weight, norm_bias, eps

    def normalised(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs with mean 0 and variance 1 over a head's channels, and the factor that made the variance 1."""
        centred = outputs - outputs.mean(-1, keepdim=True)
        factor = (centred.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return centred * factor, factor

    def norm(self, outputs: torch.Tensor) -> torch.Tensor:
        """LN of the inner model's output."""
        return self.normalised(outputs)[0] * self.norm_weight + self.norm_bias

    def gradients(
        self, weights: list[torch.Tensor], biases: list[torch.Tensor], keys: torch.Tensor, targets: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """For each layer its inputs and the gradients of each token's loss at its outputs, (…, tokens, out).

        The gradient of a weight is the outer product of the two, that of a bias the second alone.
        """
        inputs, outputs = [keys], []
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            outputs.append(inputs[-1] @ weight + bias)
            if layer < len(weights) - 1:
                inputs.append(nn.functional.gelu(outputs[-1], approximate="tanh"))
        normal, factor = self.normalised(outputs[-1])
        slope = (normal * self.norm_weight + self.norm_bias - targets) * self.norm_weight
        slope = factor * (slope - slope.mean(-1, keepdim=True) - normal * (slope * normal).mean(-1, keepdim=True))
        slopes = [slope]
        for layer in range(len(weights) - 1, 0, -1):
            slopes.insert(0, slopes[0] @ weights[layer].transpose(-1, -2) * gelu_tanh_slope(outputs[layer - 1]))
        return inputs, slopes

    def read(self, weights: list[torch.Tensor], biases: list[torch.Tensor], queries: torch.Tensor) -> torch.Tensor:
        """q + LN(f(q)) with the fast weights as they are."""
        states = queries
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            states = states @ weight + bias
            if layer < len(weights) - 1:
                states = nn.functional.gelu(states, approximate="tanh")
        return queries + self.norm(states)

    def read_dual(
        self,
        weights: list[torch.Tensor],
        biases: list[torch.Tensor],
        sums: list[torch.Tensor] | None,
        inputs: list[torch.Tensor],
        steps: list[torch.Tensor],
        queries: torch.Tensor,
        token_rates: torch.Tensor,
    ) -> torch.Tensor:
        """q + LN(f(q)) where token i has the fast weights after its own step, without making them.

        `steps` are the gradients at the layers' outputs times the tokens' rates, `sums` what the earlier tokens of the
        mini-batch left (weights, then biases), `token_rates` (…, tokens, 1) the factor τ of each token.
        """
        states = queries
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            # A token's gradient reaches a query by their product, and by 1 through the bias.
            change = torch.tril(states @ inputs[layer].transpose(-1, -2) + 1.0) @ steps[layer]
            if sums is not None:
                change = change + states @ sums[layer] + sums[len(weights) + layer]
            states = states @ weight + bias - token_rates * change
            if layer < len(weights) - 1:
                states = nn.functional.gelu(states, approximate="tanh")
        return queries + self.norm(states)


def gelu_tanh_slope(inputs: torch.Tensor) -> torch.Tensor:
    """The derivative of the tanh form of gelu."""
    scale = (2.0 / torch.pi) ** 0.5
    curve = torch.tanh(scale * (inputs + 0.044715 * inputs**3))
    return 0.5 * (1.0 + curve) + 0.5 * inputs * (1.0 - curve.square()) * scale * (1.0 + 3 * 0.044715 * inputs.square())


class TTTLayer(nn.Module):
    """Fast weights that learn to reconstruct v − k from k, read by q."""

    parameter_roles = {"o_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.n_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.adamw = params["inner_optimizer"] == "adamw"
        self.inner_steps = params["inner_steps_per_token"]
        self.mini_batch = params["mini_batch"]
        self.inner_lr = params["inner_lr"] / (1 if self.adamw else self.head_dim)
        self.eps = config.architecture["model"]["norm_eps"]
        hidden = params["inner_model"]["hidden"]
        widths = [self.head_dim, self.head_dim] if hidden is None else [self.head_dim, hidden, self.head_dim]
        inner_width = self.n_heads * self.head_dim

        self.q_proj = nn.Linear(config.hidden_size, inner_width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, inner_width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, inner_width, bias=False)
        self.o_proj = nn.Linear(inner_width, config.hidden_size, bias=False)
        self.rate_proj = nn.Linear(config.hidden_size, self.n_heads)
        self.token_rate = nn.Parameter(torch.empty(self.mini_batch))
        shapes = list(zip(widths[:-1], widths[1:], strict=True))
        self.inner_weights = NormalParameters([nn.Parameter(torch.empty(self.n_heads, *shape)) for shape in shapes])
        self.inner_biases = ZeroParameters([nn.Parameter(torch.empty(self.n_heads, 1, out)) for _, out in shapes])
        self.inner_norm_weight = nn.Parameter(torch.empty(self.n_heads, 1, self.head_dim))
        self.inner_norm_bias = nn.Parameter(torch.empty(self.n_heads, 1, self.head_dim))
        self.post_norm = nn.LayerNorm(inner_width, eps=self.eps)

    def initialize(self, initializer_range: float) -> None:
        """Fast weights begin small but not at 0, where an MLP would learn nothing; norms begin as the identity."""
        self.inner_weights.initialize(initializer_range)
        self.inner_biases.initialize(initializer_range)
        for zero in (self.inner_norm_bias, self.token_rate):
            initialization.zeros_(zero)
        initialization.ones_(self.inner_norm_weight)

    @property
    def slot_names(self) -> list[str]:
        """The names of the fast weights in the cache: weights, then biases."""
        layers = range(len(self.inner_weights))
        return [f"weight_{layer}" for layer in layers] + [f"bias_{layer}" for layer in layers]

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        cache = None if past_key_values is None else past_key_values.layers[self.layer_idx]
        # The inner training runs in float32 whatever the model's dtype: its rates and gradients are small differences.
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        heads = (*hidden_states.shape[:2], self.n_heads, self.head_dim)
        queries, keys, values = (
            projection(hidden_states).to(dtype).view(heads).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        rates = self.rate_proj(hidden_states).to(dtype).transpose(1, 2).unsqueeze(-1)
        with torch.autocast(hidden_states.device.type, enabled=False):
            rates = self.inner_lr * torch.sigmoid(rates)
            outputs = self.train_and_read((queries, keys, values - keys, rates), attention_mask, cache, sequence_ids)
        outputs = outputs.transpose(1, 2).flatten(2).to(self.post_norm.weight.dtype)
        return self.o_proj(self.post_norm(outputs).to(hidden_states.dtype))

    def train_and_read(
        self,
        streams: tuple[torch.Tensor, ...],
        attention_mask: torch.Tensor | None,
        cache: Any,
        sequence_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        """o for every token, (batch, heads, time, head_dim); the cache gets the new state.

        `streams` are queries, keys, targets (batch, heads, time, head_dim) and rates (batch, heads, time, 1).
        """
        batch, _, time, _ = streams[0].shape
        dtype, device = streams[0].dtype, streams[0].device
        names = self.slot_names
        first = [weight.to(dtype).expand(batch, *weight.shape) for weight in (*self.inner_weights, *self.inner_biases)]
        known = cache is not None and cache.get(names[0]) is not None
        state = {"fast": [cache.get(name) for name in names] if known else first}
        extras = {"sum": self.mini_batch > 1, "mean": self.adamw, "square": self.adamw}
        for extra in (extra for extra, used in extras.items() if used):
            state[extra] = [
                cache.get(f"{name}_{extra}") if known else torch.zeros_like(fast)
                for name, fast in zip(names, first, strict=True)
            ]
        tokens = cache.get("tokens") if known and (self.adamw or self.mini_batch > 1) else None
        valid = torch.ones(batch, time, dtype=torch.bool, device=device)
        if attention_mask is not None:
            valid = attention_mask != 0
        places, begins = places_in_sequence(valid, tokens, sequence_ids)
        model = TTTInnerModel(self.inner_norm_weight.to(dtype), self.inner_norm_bias.to(dtype), self.eps)
        index = torch.arange(1, self.mini_batch + 1, device=device, dtype=dtype)
        token_rates = (1.0 / index + self.token_rate.to(dtype)).clamp(min=0.0)

        if self.adamw or self.inner_steps > 1:
            outputs = self.scan(model, state, first, streams, valid, places, begins, token_rates)
        else:
            packed = sequence_ids is not None
            outputs = self.mini_batches(model, state, first, streams, valid, places, begins, packed, known, token_rates)
        if cache is not None:
            for kind, tensors in state.items():
                for name, tensor in zip(names, tensors, strict=True):
                    cache.put(name if kind == "fast" else f"{name}_{kind}", tensor)
            if self.adamw or self.mini_batch > 1:
                past = torch.zeros(batch, dtype=torch.long, device=device) if tokens is None else tokens
                cache.put("tokens", past + valid.sum(-1))
            cache.advance(time)
        return outputs

    def mini_batches(
        self,
        model: TTTInnerModel,
        state: dict[str, list[torch.Tensor]],
        first: list[torch.Tensor],
        streams: tuple[torch.Tensor, ...],
        valid: torch.Tensor,
        places: torch.Tensor,
        begins: torch.Tensor,
        packed: bool,
        known: bool,
        token_rates: torch.Tensor,
    ) -> torch.Tensor:
        """One gradient step of sgd a token, mini-batch by mini-batch; changes `state`.

        Tokens move to the slots that they have in the mini-batches of their sequence: rows may be padded, may go on in
        the middle of a mini-batch, and may hold several sequences, each of which begins a new one.
        """
        batch, heads, time, _ = streams[0].shape
        size = self.mini_batch
        slots = places % size
        if time == 1:
            # A single token needs no moving.
            count, width, target = 1, 1, None
            complete = valid & (slots == size - 1)
        else:
            width = size
            target, count = mini_batch_targets(valid, places, size, known, packed)
            streams = tuple(into_mini_batches(stream, target, count * size) for stream in streams)
            taken = flags_into_mini_batches(valid, target, count * size)
            complete = taken.view(batch, count, size)[:, :, -1]
            resets = flags_into_mini_batches(begins, target, count * size).view(batch, count, size).any(-1)
            slots = torch.arange(size, device=slots.device).expand(batch, size)
            valid = taken
        rates_of_slots = token_rates[slots][:, None, :, None]

        pieces = []
        layers = len(self.inner_weights)
        # Apart at once: the gradient of a slice would be as long as the whole sequence.
        streams = (*streams[:3], streams[3] * valid[:, None, :, None])
        batched = zip(*(stream.unflatten(2, (count, width)).unbind(2) for stream in streams), strict=True)
        for step, (queries, keys, targets, rates) in enumerate(batched):
            fast, sums = state["fast"], state.get("sum")
            if packed and step > 0:
                fresh = resets[:, step, None, None, None]
                fast = [torch.where(fresh, start, now) for start, now in zip(first, fast, strict=True)]
                if sums is not None:
                    sums = [now.masked_fill(fresh, 0.0) for now in sums]
            inputs, slopes = model.gradients(fast[:layers], fast[layers:], keys, targets)
            steps = [rates * slope for slope in slopes]
            pieces.append(model.read_dual(fast[:layers], fast[layers:], sums, inputs, steps, queries, rates_of_slots))
            changes = [given.transpose(-1, -2) @ made for given, made in zip(inputs, steps, strict=True)]
            changes += [made.sum(-2, keepdim=True) for made in steps]
            if sums is not None:
                changes = [before + change for before, change in zip(sums, changes, strict=True)]
            full = complete[:, step, None, None, None]
            state["fast"] = [
                torch.where(full, now - token_rates[-1] * change, now)
                for now, change in zip(fast, changes, strict=True)
            ]
            if sums is not None:
                state["sum"] = [change.masked_fill(full, 0.0) for change in changes]
        outputs = torch.cat(pieces, dim=2)
        if target is None:
            return outputs
        outputs = nn.functional.pad(outputs, (0, 0, 0, 1))
        return outputs.gather(2, target[:, None, :, None].expand(-1, heads, -1, outputs.shape[-1]))

    def scan(
        self,
        model: TTTInnerModel,
        state: dict[str, list[torch.Tensor]],
        first: list[torch.Tensor],
        streams: tuple[torch.Tensor, ...],
        valid: torch.Tensor,
        places: torch.Tensor,
        begins: torch.Tensor,
        token_rates: torch.Tensor,
    ) -> torch.Tensor:
        """Every step of every token after the one before; changes `state`."""
        layers = len(self.inner_weights)
        pieces = []
        tokens = zip(*(stream.split(1, dim=2) for stream in streams), strict=True)
        for time, (queries, keys, targets, rates) in enumerate(tokens):
            fresh, kept = begins[:, time, None, None, None], ~valid[:, time, None, None, None]
            for kind, tensors in state.items():
                starts = first if kind == "fast" else [torch.zeros_like(tensor) for tensor in tensors]
                state[kind] = [torch.where(fresh, start, now) for start, now in zip(starts, tensors, strict=True)]
            before = dict(state)
            rates = token_rates[0] * rates
            for step in range(self.inner_steps):
                fast = state["fast"]
                inputs, slopes = model.gradients(fast[:layers], fast[layers:], keys, targets)
                changes = [given.transpose(-1, -2) @ slope for given, slope in zip(inputs, slopes, strict=True)]
                changes += slopes
                if self.adamw:
                    number = places[:, time, None, None, None] * self.inner_steps + step + 1
                    changes = adamw_steps(state, changes, number.to(rates.dtype))
                state["fast"] = [now - rates * change for now, change in zip(fast, changes, strict=True)]
            pieces.append(model.read(state["fast"][:layers], state["fast"][layers:], queries))
            for kind, tensors in before.items():
                state[kind] = [torch.where(kept, old, new) for old, new in zip(tensors, state[kind], strict=True)]
        return torch.cat(pieces, dim=2)


def adamw_steps(
    state: dict[str, list[torch.Tensor]], gradients: list[torch.Tensor], number: torch.Tensor
) -> list[torch.Tensor]:
    """What adamw subtracts per unit of learning rate in step `number` (from 1); its moments in `state` move on."""
    first, second = TTT_BETAS
    pairs = zip(state["mean"], gradients, strict=True)
    state["mean"] = [first * mean + (1 - first) * gradient for mean, gradient in pairs]
    pairs = zip(state["square"], gradients, strict=True)
    state["square"] = [second * square + (1 - second) * gradient.square() for square, gradient in pairs]
    return [
        mean / (1 - first**number) * (square / (1 - second**number) + TTT_EPSILON).rsqrt() + TTT_WEIGHT_DECAY * fast
        for fast, mean, square in zip(state["fast"], state["mean"], state["square"], strict=True)
    ]
