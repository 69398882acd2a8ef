"""Neural memory: a small network beside a mixer, trained on each token while the model reads it.

With k, q the normalised projections of a token, v a third one, and M a network without biases (one matrix, or several
with gelu between them) whose weights are the memory:

    ℓ(M; k, v) = ‖M(k) − v‖²      S_t = η_t S_{t−1} − θ_t ∇ℓ(M; k_t, v_t)      M_t = (1 − α_t) M_{t−1} + S_t
    y_t = W_O M_t(q_t)            θ_t = inner_lr · σ(a·x_t + a₀)    η_t = σ(b·x_t + b₀)    α_t = σ(c·x_t + c₀)

All tokens of a mini-batch take their gradients at the weights W before it; momentum, forgetting and reading are each
token's own. Every gradient is then an outer product of what its layer was given and of an error, so that M_t(q_t) is
computed from M and S before the mini-batch and from products of queries with keys, weighted by

    A[t, j] = Σ_{j ≤ m ≤ t} Π_{m < n ≤ t} (1 − α_n) · Π_{j < n ≤ m} η_n · θ_j

and no M_t is ever made. Without updates the memory is its first weights, trained like any others, and reads alone.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  weight_l of every layer l, (batch, in, out); momentum_l where there is momentum; with mini-batches over 1
        anchor_l, the weights before the mini-batch, and tokens (batch,), how many the sequence has had. In float32
        (float64 for float64 inputs)
Source: Behrouz et al. 2025, arXiv:2501.00663, equations 8 to 15, sections 3.1, 3.2 and 4.4
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.memory import MemoryModule
from eulerstack.hf.mini_batches import (
    flags_into_mini_batches,
    into_mini_batches,
    mini_batch_targets,
    places_in_sequence,
)
from eulerstack.hf.parameter_lists import NormalParameters

TITANS_NORM_EPSILON = 1e-6


def unit_vectors(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1; zero stays zero, with a gradient."""
    return vectors * (vectors.square().sum(-1, keepdim=True) + TITANS_NORM_EPSILON).rsqrt()


def gelu_slope(inputs: torch.Tensor) -> torch.Tensor:
    """The derivative of gelu."""
    density = torch.exp(-0.5 * inputs.square()) * (2.0 * torch.pi) ** -0.5
    return 0.5 * (1.0 + torch.erf(inputs * 0.5**0.5)) + inputs * density


def logit(probability: float) -> float:
    """What a sigmoid takes to `probability`."""
    return float(torch.logit(torch.tensor(probability, dtype=torch.float64)))


def decays(log_factors: torch.Tensor) -> torch.Tensor:
    """Products of the factors after token j up to token i, (batch, tokens, tokens); 0 where j comes after i."""
    summed = log_factors.cumsum(-1)
    pairs = summed[:, :, None] - summed[:, None, :]
    later = torch.ones(pairs.shape[-2:], dtype=torch.bool, device=pairs.device).triu(1)
    return pairs.masked_fill(later, -torch.inf).exp()


class NeuralMemory(MemoryModule):
    """A network that learns to give v for k, read by q."""

    surprise_name = "titans_memory"
    parameter_roles = {"o_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__(params, layer_idx)
        width, depth = config.hidden_size, params["depth"]
        widths = [width, *(depth - 1) * [params["hidden"]], width]
        shapes = zip(widths[:-1], widths[1:], strict=True)
        self.inner_weights = NormalParameters([nn.Parameter(torch.empty(*shape)) for shape in shapes])
        self.q_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        if not self.updates:
            return
        self.inner_lr, self.mini_batch = params["inner_lr"], params["mini_batch"]
        self.starts = {name: params[name] for name in ("momentum", "forget") if params[name]}
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.gate_proj = nn.Linear(width, 1 + len(self.starts), bias=False)
        self.gate_bias = nn.Parameter(torch.empty(1 + len(self.starts)))

    def initialize(self, initializer_range: float) -> None:
        """Gates begin where the spec says, the rate at half of inner_lr; the network begins small, but not at 0."""
        self.inner_weights.initialize(initializer_range)
        if self.updates:
            starts = [0.0, *(logit(value) for value in self.starts.values())]
            initialization.copy_(self.gate_bias, torch.tensor(starts, dtype=self.gate_bias.dtype))

    @property
    def layers(self) -> range:
        """The indices of the network's layers."""
        return range(len(self.inner_weights))

    def first_state(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        rows = hidden_states.shape[0]
        weights = [weight.to(dtype).expand(rows, *weight.shape) for weight in self.inner_weights]
        state = {f"weight_{layer}": weights[layer] for layer in self.layers}
        if not self.updates:
            return state
        if "momentum" in self.starts:
            state |= {f"momentum_{layer}": torch.zeros_like(weights[layer]) for layer in self.layers}
        if self.mini_batch > 1:
            state |= {f"anchor_{layer}": weights[layer] for layer in self.layers}
            state["tokens"] = torch.zeros(rows, dtype=torch.long, device=hidden_states.device)
        return state

    def streams(self, hidden_states: torch.Tensor, valid: torch.Tensor) -> dict[str, torch.Tensor]:
        """Keys, values and queries, (batch, 1, time, d_model), and the gates, (batch, 1, time, 1), as logarithms.

        `rate` is θ; a token that is padding has no rate, keeps momentum and forgets nothing.
        """
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        silu = nn.functional.silu
        queries = unit_vectors(silu(self.q_proj(hidden_states).to(dtype)))
        if not self.updates:
            return {"queries": queries.unsqueeze(1)}
        keys, values = (projection(hidden_states).to(dtype) for projection in (self.k_proj, self.v_proj))
        gates = self.gate_proj(hidden_states).to(dtype) + self.gate_bias.to(dtype)
        counts = valid.unsqueeze(-1)
        streams = {
            "keys": unit_vectors(silu(keys)),
            "values": silu(values),
            "queries": queries,
            "rate": self.inner_lr * torch.sigmoid(gates[..., :1]) * counts,
        }
        for place, name in enumerate(self.starts, start=1):
            gate = gates[..., place : place + 1]
            # What is left of the weights is 1 − α, of the momentum η.
            kept = nn.functional.logsigmoid(-gate if name == "forget" else gate)
            streams[name] = kept.masked_fill(~counts, 0.0)
        return {name: stream.unsqueeze(1) for name, stream in streams.items()}

    def errors(
        self, weights: list[torch.Tensor], keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """For each layer its inputs and the gradients of each token's loss at its outputs, (batch, tokens, width)."""
        inputs, sums = [keys], []
        for layer, weight in enumerate(weights):
            sums.append(inputs[-1] @ weight)
            if layer < len(weights) - 1:
                inputs.append(nn.functional.gelu(sums[-1]))
        slopes = [2.0 * (sums[-1] - values)]
        for layer in range(len(weights) - 1, 0, -1):
            slopes.insert(0, slopes[0] @ weights[layer].transpose(-1, -2) * gelu_slope(sums[layer - 1]))
        return inputs, slopes

    def read(self, weights: list[torch.Tensor], queries: torch.Tensor) -> torch.Tensor:
        """M(q) with the weights as they are."""
        for layer, weight in enumerate(weights):
            queries = (nn.functional.gelu(queries) if layer else queries) @ weight
        return queries

    def learn_and_read(
        self,
        hidden_states: torch.Tensor,
        state: dict[str, torch.Tensor],
        first: dict[str, torch.Tensor],
        valid: torch.Tensor,
        sequence_ids: torch.Tensor | None,
        known: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        # The inner training runs in float32 whatever the model's dtype: its rates and gradients are small differences.
        streams = self.streams(hidden_states, valid)
        with torch.autocast(hidden_states.device.type, enabled=False):
            if self.updates:
                outputs, state = self.learn(streams, state, first, valid, sequence_ids, known)
            else:
                weights = [state[f"weight_{layer}"] for layer in self.layers]
                outputs = self.read(weights, streams["queries"].squeeze(1))
        return self.o_proj(outputs.to(hidden_states.dtype)), state

    def learn(
        self,
        streams: dict[str, torch.Tensor],
        state: dict[str, torch.Tensor],
        first: dict[str, torch.Tensor],
        valid: torch.Tensor,
        sequence_ids: torch.Tensor | None,
        known: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What every token reads, mini-batch by mini-batch, and the state after the last one.

        Tokens move to the slots that they have in the mini-batches of their sequence.
        """
        size, packed = self.mini_batch, sequence_ids is not None
        batch, time = valid.shape
        tokens = state.get("tokens")
        places, begins = places_in_sequence(valid, tokens if known else None, sequence_ids)
        state = {name: tensor for name, tensor in state.items() if name != "tokens"}
        if time == 1:
            # A single token needs no moving.
            count, width, target = 1, 1, None
            taken = valid.view(batch, 1, 1)
            complete = valid & (places % size == size - 1)
        else:
            width = size
            target, count = mini_batch_targets(valid, places, size, known, packed)
            length = count * size
            streams = {name: into_mini_batches(stream, target, length) for name, stream in streams.items()}
            taken = flags_into_mini_batches(valid, target, length).view(batch, count, size)
            complete = taken[:, :, -1]
            resets = flags_into_mini_batches(begins, target, length).view(batch, count, size).any(-1)
        # Apart at once: the gradient of a slice would be as long as the whole sequence.
        parts = {name: stream.squeeze(1).unflatten(1, (count, width)).unbind(1) for name, stream in streams.items()}
        pieces = []
        for step in range(count):
            if packed and step > 0:
                fresh = resets[:, step, None, None]
                state = {name: torch.where(fresh, first[name], tensor) for name, tensor in state.items()}
            part = {name: stream[step] for name, stream in parts.items()}
            piece, state = self.learn_mini_batch(part, taken[:, step], complete[:, step], state)
            pieces.append(piece)
        outputs = torch.cat(pieces, dim=1)
        if target is not None:
            outputs = nn.functional.pad(outputs, (0, 0, 0, 1))
            outputs = outputs.gather(1, target.unsqueeze(-1).expand(-1, -1, outputs.shape[-1]))
        if tokens is not None:
            state["tokens"] = tokens + valid.sum(-1)
        return outputs, state

    def learn_mini_batch(
        self, part: dict[str, torch.Tensor], taken: torch.Tensor, complete: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What the tokens of one mini-batch, or the next ones of it, read, (batch, tokens, d_model), and the state.

        `part` are their streams, (batch, tokens, …); slots that are not `taken`, (batch, tokens), hold no token;
        `complete`, (batch,), says where the mini-batch ends.
        """
        weights = [state[f"weight_{layer}"] for layer in self.layers]
        anchors = [state[f"anchor_{layer}"] for layer in self.layers] if self.mini_batch > 1 else weights
        inputs, slopes = self.errors(anchors, part["keys"], part["values"])
        rates, forget, momentum = part["rate"].mT, part.get("forget"), part.get("momentum")
        # kept[t, j]: what is left at t of what was added at j; reach[t, j]: what M_t has of the gradient of j, as A.
        if forget is None:
            kept = torch.ones_like(rates.mT * rates).tril()
            left = torch.ones_like(rates.mT)
        else:
            kept, left = decays(forget.squeeze(-1)), forget.cumsum(1).exp()
        # A slot without a token adds no momentum.
        kept = kept * taken[:, None, :]
        reach, carried, surged = kept * rates, None, None
        if momentum is not None:
            surged, surge = decays(momentum.squeeze(-1)) * rates, momentum.cumsum(1).exp()
            reach, carried = kept @ surged, kept @ surge

        queries = part["queries"]
        for layer, weight in enumerate(weights):
            queries = nn.functional.gelu(queries) if layer else queries
            output = left * (queries @ weight) - (queries @ inputs[layer].mT * reach) @ slopes[layer]
            if carried is not None:
                output = output + carried * (queries @ state[f"momentum_{layer}"])
            queries = output

        after = {}
        for layer, weight in enumerate(weights):
            given, slope = inputs[layer].mT, slopes[layer]
            changed = left[:, -1:] * weight - given @ (reach[:, -1].unsqueeze(-1) * slope)
            if carried is not None and surged is not None:
                before = state[f"momentum_{layer}"]
                changed = changed + carried[:, -1:] * before
                after[f"momentum_{layer}"] = surge[:, -1:] * before - given @ (surged[:, -1].unsqueeze(-1) * slope)
            after[f"weight_{layer}"] = changed
            if self.mini_batch > 1:
                after[f"anchor_{layer}"] = torch.where(complete[:, None, None], changed, anchors[layer])
        return queries, after

    def step(
        self, hidden_states: torch.Tensor, state: dict[str, torch.Tensor], valid: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """One step on the mean gradient of a row's tokens, at the mean of their gates; it ends a mini-batch."""
        streams = {name: stream.squeeze(1) for name, stream in self.streams(hidden_states, valid).items()}
        weights = [state[f"weight_{layer}"] for layer in self.layers]
        inputs, slopes = self.errors(weights, streams["keys"], streams["values"])
        counts = valid.sum(-1).clamp(min=1)[:, None, None]
        gates = {
            name: (streams[name].exp() * valid.unsqueeze(-1)).sum(1, keepdim=True) / counts for name in self.starts
        }
        after = dict(state)
        for layer, weight in enumerate(weights):
            change = -inputs[layer].mT @ (streams["rate"] / counts * slopes[layer])
            if "momentum" in gates:
                change = gates["momentum"] * state[f"momentum_{layer}"] + change
                after[f"momentum_{layer}"] = change
            after[f"weight_{layer}"] = (weight * gates["forget"] if "forget" in gates else weight) + change
        some = valid.any(-1)[:, None, None]
        after = {
            name: tensor if name == "tokens" else torch.where(some, tensor, state[name])
            for name, tensor in after.items()
        }
        losses = (0.25 * slopes[-1].square()).sum(-1) * valid
        return self.at_rest(after), losses.sum(-1) / counts.view(-1)

    def at_rest(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.mini_batch == 1:
            return state
        state = {**state, "tokens": torch.zeros_like(state["tokens"])}
        return state | {f"anchor_{layer}": state[f"weight_{layer}"] for layer in self.layers}
