"""A mixture of experts: each token passes through the few that its router chooses, and through shared ones.

For the logits z = W x, in float32 at least: s = router(z) chooses, with a correction b where there is one, the `top_k`
experts of largest s + b, or a hash of the token's id does; a = affinity(z) weighs them, divided by its sum over the
chosen where that is asked for, times `routed_scale`. y = Σ_chosen a_e · down_e(act(gate_e x) ⊙ up_e x) + shared(x),
where experts may do without gates, down_e(act(up_e x)), `gate_limit` may cut both factors, and σ(gate·x) may weigh the
shared ones.
While training, experts may have a capacity; else no token is ever dropped, and none sees another.

Shapes: (batch, time, d_model) -> (batch, time, d_model); experts' weights (experts, out, in)
Cost:   experts·d_model for the router, 3·d_model·d_expert for each expert, 3·d_model·d_shared for the shared ones, of
        which a third goes without gates; d_model for the gate of the shared ones; a token passes through top_k experts
Source: Shazeer et al. 2017, arXiv:1701.06538; softmax over all experts, then the best: Mixtral, arXiv:2401.04088;
        sigmoid, groups, correction: DeepSeek-V3, arXiv:2412.19437, equations 12 to 20; √softplus: DeepSeek-V4; load
        balance: Switch Transformers, arXiv:2101.03961, equations 4 to 6; z-loss: ST-MoE, arXiv:2202.08906, equation 5
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.tables import ByName
from eulerstack.hf.usage_probe import usage_probe
from eulerstack_mixers.modules.activations import ACTIVATIONS
from eulerstack_mixers.modules.expert_capacity import CAPACITY_POLICIES
from eulerstack_mixers.modules.grouped import grouped_linear
from eulerstack_mixers.modules.hash_routing import FIXED_ROUTES


def softmax_affinity(logits: torch.Tensor) -> torch.Tensor:
    """Shares of all experts together, (tokens, experts)."""
    return logits.softmax(-1)


def sqrt_softplus_affinity(logits: torch.Tensor) -> torch.Tensor:
    """√log(1 + e^z) of each expert by itself, (tokens, experts)."""
    return nn.functional.softplus(logits).sqrt()


# What a router's logits become: a value of each expert that grows with its logit.
AFFINITIES: ByName = {
    "softmax": softmax_affinity,
    "sigmoid": torch.sigmoid,
    "sqrt_softplus": sqrt_softplus_affinity,
}
# Above every value of a router; whole numbers below it are exact in float32.
FIXED_RANK = 2.0**20


class ExpertRouter(nn.Module):
    """Chooses the experts of each token and weighs them."""

    parameter_roles = {"weight": "router"}
    # Corrections are sums of many small steps.
    float32_buffers = ("bias",)

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.n_experts, self.top_k = params["experts"], params["top_k"]
        self.scores = AFFINITIES[params["router"]]
        self.affinity = AFFINITIES[params["affinity"]]
        self.normalize, self.routed_scale = params["normalize_top_k"], params["routed_scale"]
        self.n_groups, self.group_limit = params["n_groups"], params["balance"]["group_limit"]
        self.init_std, self.jitter = params["router_init_std"], params["router_jitter"]
        self.weight = nn.Parameter(torch.empty(self.n_experts, config.hidden_size))
        corrected = params["bias_correction"]["enabled"]
        self.bias: torch.Tensor | None
        self.register_buffer("bias", torch.zeros(self.n_experts, dtype=torch.float32) if corrected else None)
        # The experts of every token id where they are fixed, (vocab_size, top_k).
        self.routing = params["routing"]
        self.table: torch.Tensor | None
        fixed = self.routing["type"] in FIXED_ROUTES
        size = (config.vocab_size, self.top_k)
        self.register_buffer("table", torch.zeros(size, dtype=torch.long) if fixed else None)

    def initialize(self, initializer_range: float) -> None:
        std = initializer_range if self.init_std is None else self.init_std
        initialization.normal_(self.weight, mean=0.0, std=std)
        if self.bias is not None:
            initialization.zeros_(self.bias)
        if self.table is not None:
            initialization.copy_(self.table, self.fixed_experts(self.table.shape[0]))

    def fixed_experts(self, vocab_size: int) -> torch.Tensor:
        """The experts of every token id, (vocab_size, top_k)."""
        fixed = FIXED_ROUTES[self.routing["type"]]
        return fixed(torch.arange(vocab_size), self.routing["hash_salt"], self.n_experts, self.top_k)

    def resize_vocabulary(self, vocab_size: int) -> None:
        """Gives new token ids their experts; those of the old ones stay."""
        if self.table is not None:
            more = self.fixed_experts(vocab_size).to(self.table.device)[self.table.shape[0] :]
            self.table = torch.cat((self.table, more))[:vocab_size]

    def _apply(self, fn: Any, recurse: bool = True) -> "ExpertRouter":
        before = self.bias
        super()._apply(fn, recurse)
        if before is not None and self.bias is not None and self.bias.dtype in (torch.bfloat16, torch.float16):
            self.bias = before.to(self.bias.device)
        return self

    def forward(
        self, hidden_states: torch.Tensor, token_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(tokens, d_model), ids (tokens) -> logits (tokens, experts); weights and indices of the chosen, both (tokens,
        top_k)."""
        precise = torch.promote_types(hidden_states.dtype, torch.float32)
        states = hidden_states.to(precise)
        if self.training and self.jitter > 0.0:
            states = states * torch.empty_like(states).uniform_(1.0 - self.jitter, 1.0 + self.jitter)
        logits = nn.functional.linear(states, self.weight.to(precise))
        chosen = self.ranking(logits, token_ids).topk(self.top_k, dim=-1).indices
        return logits, self.weigh(logits, chosen), chosen

    def ranking(self, logits: torch.Tensor, token_ids: torch.Tensor | None) -> torch.Tensor:
        """(tokens, experts): the larger, the sooner an expert is chosen; -inf where it must not be."""
        choice = self.scores(logits)
        if self.bias is not None:
            choice = choice + self.bias.to(logits.dtype)
        if self.group_limit is not None:
            choice = choice.masked_fill(~self.allowed(choice), -torch.inf)
        if self.table is not None:
            if token_ids is None:
                raise ValueError("experts are chosen by token ids here: give input_ids, beside inputs_embeds too")
            ranks = FIXED_RANK - torch.arange(self.top_k, device=logits.device, dtype=logits.dtype)
            choice = choice.scatter(-1, self.table[token_ids], ranks.expand(logits.shape[0], -1))
        return choice

    def weigh(self, logits: torch.Tensor, chosen: torch.Tensor, taken: torch.Tensor | None = None) -> torch.Tensor:
        """The weights of the chosen experts, (tokens, top_k); those that are not `taken` weigh nothing."""
        weights = self.affinity(logits).gather(-1, chosen)
        if taken is not None:
            weights = weights * taken
        if self.normalize:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * self.routed_scale

    def allowed(self, choice: torch.Tensor) -> torch.Tensor:
        """Which experts lie in the groups that a token may choose from: those whose two best have the largest sum."""
        groups = choice.unflatten(-1, (self.n_groups, -1))
        best = groups.topk(min(2, groups.shape[-1]), dim=-1).values.sum(-1)
        open_groups = torch.zeros_like(best, dtype=torch.bool)
        open_groups.scatter_(-1, best.topk(self.group_limit, dim=-1).indices, True)
        return open_groups.repeat_interleave(groups.shape[-1], dim=-1)


def gated_product(gate: torch.Tensor, up: torch.Tensor, activation: Any, limit: float | None) -> torch.Tensor:
    """act(gate) ⊙ up, both cut to `limit` before, (..., channels)."""
    if limit is not None:
        gate, up = gate.clamp(max=limit), up.clamp(min=-limit, max=limit)
    return activation(gate) * up


class Experts(nn.Module):
    """The weights of all experts, and the computation of the chosen ones."""

    parameter_roles = {"gate_up_proj": "hidden", "up_proj": "hidden", "down_proj": "output"}
    # `initialize` computes nothing with what it draws, so that no float32 copy of all experts is needed.
    only_draws = True

    def __init__(self, n_experts: int, width: int, inner: int, params: dict[str, Any]):
        super().__init__()
        self.n_experts, self.gated, self.gate_limit = n_experts, params["gated"], params["gate_limit"]
        # The name says what it holds: gate and up joined, or up alone.
        self.first = "gate_up_proj" if self.gated else "up_proj"
        height = 2 * inner if self.gated else inner
        self.register_parameter(self.first, nn.Parameter(torch.empty(n_experts, height, width)))
        self.down_proj = nn.Parameter(torch.empty(n_experts, width, inner))
        self.activation = ACTIVATIONS[params["activation"]]
        # Tells experts apart by their outputs, where the spec asks for it.
        self.usage_probe: Any = None

    def initialize(self, initializer_range: float) -> None:
        for weight in (getattr(self, self.first), self.down_proj):
            initialization.normal_(weight, mean=0.0, std=initializer_range)

    def between(self, first: torch.Tensor) -> torch.Tensor:
        """What the second matrix reads, of what the first gave; (..., channels)."""
        if not self.gated:
            return self.activation(first)
        gate, up = first.chunk(2, dim=-1)
        return gated_product(gate, up, self.activation, self.gate_limit)

    def forward(
        self,
        hidden_states: torch.Tensor,
        weights: torch.Tensor | None = None,
        chosen: torch.Tensor | None = None,
        taken: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_states (tokens, d_model), weights and chosen (tokens, top_k) -> (tokens, d_model).

        Where `taken` (tokens, top_k) is given, the others are left out. Alone, (experts, rows, d_model) are the rows of
        each expert, and become the same shape: an adapter acts on what is called, and on nothing else.
        """
        if weights is None or chosen is None:
            return self.in_buffers(hidden_states)
        flat = chosen.flatten()
        numbers = torch.arange(self.n_experts, device=flat.device)
        if taken is None:
            order = flat.argsort(stable=True)
            sizes = (flat.unsqueeze(-1) == numbers).sum(0)
        else:
            left = taken.flatten()
            order = flat.masked_fill(~left, self.n_experts).argsort(stable=True)[: int(left.sum())]
            sizes = ((flat.unsqueeze(-1) == numbers) & left.unsqueeze(-1)).sum(0)
        tokens = order // chosen.shape[-1]
        ends = sizes.cumsum(0).int()
        inner = self.between(grouped_linear(hidden_states[tokens], getattr(self, self.first), ends))
        outputs = grouped_linear(inner, self.down_proj, ends)
        if self.training and self.usage_probe is not None:
            self.usage_probe.read(outputs, flat[order], tokens)
        outputs = (outputs * weights.flatten()[order].unsqueeze(-1)).to(hidden_states.dtype)
        return torch.zeros_like(hidden_states).index_add(0, tokens, outputs)

    def in_buffers(self, buffers: torch.Tensor) -> torch.Tensor:
        """Each expert's own rows, (experts, rows, d_model) -> the same shape."""
        inner = self.between(torch.bmm(buffers, getattr(self, self.first).transpose(-2, -1).to(buffers.dtype)))
        return torch.bmm(inner, self.down_proj.transpose(-2, -1).to(buffers.dtype))


class SharedExperts(nn.Module):
    """The experts that every token passes through, as one unit of their joint width."""

    parameter_roles = {"down_proj.weight": "output", "gate.weight": "router"}

    def __init__(self, width: int, inner: int, params: dict[str, Any]):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False) if params["gated"] else None
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        # How much of them a token takes.
        self.gate = nn.Linear(width, 1, bias=False) if params["shared_gate"] else None
        self.activation, self.gate_limit = ACTIVATIONS[params["activation"]], params["gate_limit"]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        inner = self.up_proj(hidden_states)
        if self.gate_proj is None:
            inner = self.activation(inner)
        else:
            inner = gated_product(self.gate_proj(hidden_states), inner, self.activation, self.gate_limit)
        output = self.down_proj(inner)
        if self.gate is not None:
            share = self.gate(hidden_states.to(self.gate.weight.dtype)).sigmoid()
            output = output * share.to(output.dtype)
        return output


class MixtureOfExperts(nn.Module):
    """The layer calls it between `begin` and `finish`, which hands out what its routing adds to the loss."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        width = config.hidden_size
        self.router = ExpertRouter(config, params)
        self.experts = Experts(params["experts"], width, params["d_expert"], params)
        self.experts.usage_probe = usage_probe(config, params["experts"])
        # In a list, which is no second place of its parameters: what an adapter has wrapped hides its attributes.
        self.usage_probes = [self.experts.usage_probe]
        self.shared = SharedExperts(width, params["d_shared"], params) if params["shared_experts"] else None
        self.load_balance_coef, self.z_loss = params["load_balance_coef"], params["z_loss"]
        self.sequence_coef = params["balance"]["sequence_aux_coef"]
        self.correction = params["bias_correction"]
        self.coefficient = config.architecture["training_hints"]["router_aux_loss_coef"]
        self.capacity_factor = params["capacity_factor"]
        self.limited = None if self.capacity_factor is None else CAPACITY_POLICIES[params["capacity_drop_policy"]]
        # What `begin` must be given beside `kept`.
        self.reads_tokens = self.router.table is not None
        self.reads_sequences = self.limited is not None
        self.shape: torch.Size | None = None
        self.kept: torch.Tensor | None = None
        self.token_ids: torch.Tensor | None = None
        self.sequence_ids: torch.Tensor | None = None
        self.loss: torch.Tensor | None = None
        self.load: torch.Tensor | None = None
        self.last_load: torch.Tensor | None = None

    def begin(
        self,
        kept: torch.Tensor | None,
        token_ids: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
    ) -> None:
        """`kept` (batch, time) is 0 at padding, which counts in no loss and no load; None: there is none.

        `token_ids` (batch, time) are there unless embeddings came in their stead, `sequence_ids` (batch or 1, time)
        where a row is packed with several sequences.
        """
        self.kept, self.sequence_ids = kept, sequence_ids
        self.token_ids = None if token_ids is None else token_ids.flatten()
        self.loss = self.load = None
        for probe in filter(None, self.usage_probes):
            probe.begin(kept)

    def finish(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """While training: what is to be added to the loss, and how many tokens each expert was given."""
        loss = self.loss
        for probe in filter(None, self.usage_probes):
            loss = None if loss is None else loss + probe.finish()
        report = loss, self.load
        self.kept = self.token_ids = self.sequence_ids = self.loss = self.load = None
        return report

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        flat = hidden_states.flatten(0, -2)
        logits, weights, chosen = self.router(flat, self.token_ids)
        if self.training and self.limited is not None:
            self.shape = hidden_states.shape[:-1]
            output = self.limited(self, flat, logits, weights, chosen).view_as(hidden_states)
        else:
            output = self.experts(flat, weights, chosen).view_as(hidden_states)
        if self.shared is not None:
            output = output + self.shared(hidden_states)
        if self.training:
            self.observe(logits, chosen, hidden_states.shape[:-1])
        return output

    def observe(self, logits: torch.Tensor, chosen: torch.Tensor, shape: torch.Size) -> None:
        """Keeps the losses of the routing and the experts' load until `finish`."""
        kept = torch.ones(shape, device=logits.device) if self.kept is None else self.kept
        kept = kept.reshape(-1, shape[-1], 1).to(logits.dtype)
        logits = logits.view(*kept.shape[:2], -1)
        assigned = torch.zeros_like(logits).scatter(-1, chosen.view(*kept.shape[:2], -1), 1.0) * kept
        if self.correction["enabled"]:
            self.load = assigned.detach().sum((0, 1))
        scores = self.router.scores(logits)
        shares = scores / scores.sum(-1, keepdim=True) * kept
        number = kept.sum().clamp(min=1.0)
        scale = self.router.n_experts / self.router.top_k
        loss = logits.new_zeros(())
        if self.load_balance_coef:
            balance = (assigned.sum((0, 1)) / number * (shares.sum((0, 1)) / number)).sum()
            loss = loss + self.load_balance_coef * scale * balance
        if self.z_loss:
            loss = loss + self.z_loss * (logits.logsumexp(-1, keepdim=True).square() * kept).sum() / number
        if self.sequence_coef:
            lengths = kept.sum(1).clamp(min=1.0)
            each = (assigned.sum(1) / lengths * (shares.sum(1) / lengths)).sum(-1)
            present = (kept.sum(1).squeeze(-1) > 0).to(each.dtype)
            loss = loss + self.sequence_coef * scale * (each * present).sum() / present.sum().clamp(min=1.0)
        self.loss = self.coefficient * loss

    @torch.no_grad()
    def note_load(self, load: torch.Tensor) -> None:
        """Keeps the load of a training pass for `correct`, which must wait until its backward pass is over."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(load)
        self.last_load = load

    @torch.no_grad()
    def correct(self) -> None:
        """Moves the router's correction towards an even load: down by `update_rate` for an expert that was given more
        than its share, up for one that was given less, unless it was within `target_imbalance` of it."""
        load, bias = self.last_load, self.router.bias
        if load is None or bias is None:
            return
        mean = load.mean()
        error = mean - load
        far = error.abs() > self.correction["target_imbalance"] * mean
        bias.add_((self.correction["update_rate"] * error.sign() * far).to(bias))
        self.last_load = None
