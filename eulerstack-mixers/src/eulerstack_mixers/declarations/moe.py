"""A mixture of experts, of which each token passes through the few that a router chooses.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  none
Cost:   parameters experts·d_model + experts·m·d_model·d_expert + m·d_model·d_shared, m = 3 where experts are gated and
        2 where not, and d_model for shared_gate; of these a token touches those of the routers, of top_k experts and of
        the shared ones; FLOPs per token 2 per weight that it touches
Errors: CompatibilityError when top_k exceeds the experts, groups don't divide them, or words contradict each other
Source: see modules/moe.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Cost, Dims, Primitive, Problem
from eulerstack_mixers.declarations.words import Schema, boolean, choice, hidden_act, integer, number

Params = Mapping[str, Any]

SEE = "reference/errors.md#moe"
MOST_EXPERTS = 2**16
POLICIES = ("overflow", "drop", "pad")
LOAD_BALANCE = 0.01
SCORES = ("softmax", "sigmoid", "sqrt_softplus")

BIAS_CORRECTION: Schema = {
    "type": "object",
    "description": (
        "A correction of each expert's score that evens out the load without a loss; it chooses experts, and weighs "
        "none."
    ),
    "default": {},
    "properties": {
        "enabled": boolean("Whether there is one.", False),
        "update_rate": number("Step of each correction in a training pass.", 0.001, exclusiveMinimum=0, maximum=1),
        "target_imbalance": number(
            "Deviation from an even load, as a part of it, within which an expert is left alone.", 0.0, minimum=0,
            maximum=1000,
        ),
    },
    "additionalProperties": False,
}  # fmt: skip
BALANCE: Schema = {
    "type": "object",
    "description": "Balance within sequences and groups.",
    "default": {},
    "properties": {
        "sequence_aux_coef": number(
            "Factor on the load-balance loss of each sequence by itself.", 0.0, minimum=0, maximum=1000
        ),
        "group_limit": integer(
            "Groups of experts that a token may choose from: those whose two best scores have the largest sum; null: "
            "all.",
            None,
            nullable=True,
            minimum=1,
            maximum=MOST_EXPERTS,
        ),
    },
    "additionalProperties": False,
}

ROUTING: Schema = {
    "type": "object",
    "description": "Who chooses the experts.",
    "default": {},
    "properties": {
        "type": choice(
            "learned: the router; hash: a hash of the token's id, once and for all, so that the router only weighs.",
            ("learned", "hash"),
            "learned",
        ),
        "hash_salt": integer(
            "Chooses among hashes: layers with another salt choose other experts.", 0, minimum=0, maximum=2**31 - 1
        ),
    },
    "additionalProperties": False,
}

WORDS: Schema = {
    "experts": {**integer("Experts that a router chooses from.", minimum=1, maximum=MOST_EXPERTS), "examples": [8]},
    "top_k": {
        **integer("Experts that a token passes through; at most experts.", minimum=1, maximum=MOST_EXPERTS),
        "examples": [2],
    },
    "router": choice("Function of the router's logits whose largest values choose the experts.", SCORES, "softmax"),
    "affinity": {
        "type": ["string", "null"],
        "enum": [*SCORES, None],
        "default": None,
        "description": "Function of the router's logits that weighs the chosen experts; null: that of router.",
    },
    "normalize_top_k": boolean("Whether the weights of the chosen experts are divided by their sum.", True),
    "routed_scale": number("Factor on the weights of the chosen experts.", 1.0),
    "d_expert": integer(
        "Width of one expert, in channels; null: model.d_ff.", None, nullable=True, minimum=1, maximum=2**24
    ),
    "shared_experts": integer("Experts that every token passes through.", 0, minimum=0, maximum=MOST_EXPERTS),
    "d_shared": integer(
        "Width of all shared experts together, in channels; null: shared_experts * d_expert.",
        None,
        nullable=True,
        minimum=1,
        maximum=2**24,
    ),
    "shared_gate": boolean(
        "Whether a learned number between 0 and 1 of each token weighs the shared experts.", False
    ),
    "gated": boolean("Whether experts are gated units; false: each is two matrices with the activation between.", True),
    "gate_limit": number(
        "Limit that cuts an expert's gate from above before its activation, and what it multiplies from both sides; "
        "null: none.", None, nullable=True, exclusiveMinimum=0, maximum=2**20,
    ),
    "n_groups": integer("Groups of neighbouring experts, for balance.group_limit.", 1, minimum=1, maximum=MOST_EXPERTS),
    "routing": ROUTING,
    "capacity_factor": number(
        "While training, an expert takes of the first t tokens of a sequence at most this times top_k * t / experts, "
        "rounded up; null: as many as come.", None, nullable=True, exclusiveMinimum=0, maximum=2**16,
    ),
    "capacity_drop_policy": {
        "type": ["string", "null"],
        "enum": [*POLICIES, None],
        "default": None,
        "description": (
            "What becomes of a token that an expert has no room for: overflow: it takes the next best expert that has "
            "room; drop: it does without; pad: the same, in buffers of one size; null: drop, where there is a capacity."
        ),
    },
    "load_balance_coef": number(
        "Factor on the load-balance loss of a batch; null: 0.01, or 0 where a hash chooses.", None, nullable=True,
        minimum=0, maximum=1000,
    ),
    "z_loss": number("Factor on the mean square of the logits' log-sum-exp.", 0.0, minimum=0, maximum=1000),
    "balance": BALANCE,
    "bias_correction": BIAS_CORRECTION,
    "router_init_std": number(
        "Deviation of the router's initial weights; null: model.initializer_range.", None, nullable=True,
        exclusiveMinimum=0, maximum=1000,
    ),
    "router_jitter": number(
        "While training the router's input is multiplied by numbers between 1 - this and 1 + this.", 0.0, minimum=0,
        exclusiveMaximum=1,
    ),
    "activation": choice(
        "Function of an expert's gate, or of its inner channels where there is none: swiglu and silu are one function, "
        "as are geglu and gelu; relu2 is relu squared.",
        ("swiglu", "geglu", "gelu", "gelu_tanh", "relu", "relu2", "silu"),
        "swiglu",
    ),
}  # fmt: skip


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """Fills what other words decide."""
    d_expert = params["d_expert"] or model["model"]["d_ff"]
    policy, balance = params["capacity_drop_policy"], params["load_balance_coef"]
    if policy is None and params["capacity_factor"] is not None:
        policy = "drop"
    if balance is None:
        balance = 0.0 if params["routing"]["type"] == "hash" else LOAD_BALANCE
    return {
        **params,
        "capacity_drop_policy": policy,
        "load_balance_coef": balance,
        "affinity": params["affinity"] or params["router"],
        "d_expert": d_expert,
        "d_shared": params["d_shared"] or params["shared_experts"] * d_expert or None,
    }


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Choices that can't be made, and words that would do nothing."""
    experts, top_k, groups = params["experts"], params["top_k"], params["n_groups"]
    limit = params["balance"]["group_limit"]
    if top_k > experts:
        yield Problem(
            "top_k",
            msg("top_k {top_k} is larger than experts {experts}", top_k=top_k, experts=experts),
            msg("type top_k: {experts} or less", experts=experts),
            SEE,
        )
    if experts % groups:
        yield Problem(
            "n_groups",
            msg("experts {experts} can't be divided into n_groups {groups}", experts=experts, groups=groups),
            msg("type an n_groups that divides experts"),
            SEE,
        )
    if groups > 1 and limit is None:
        yield Problem(
            "n_groups",
            msg("n_groups has a meaning only with balance.group_limit"),
            msg("add group_limit: {limit} to balance, or delete n_groups", limit=max(1, groups // 2)),
            SEE,
        )
    if limit is not None and (limit > groups or limit * (experts // groups) < top_k):
        yield Problem(
            "balance.group_limit",
            msg("{limit} of {groups} groups leave {left} experts to choose {top_k} from", limit=limit, groups=groups,
                left=min(limit, groups) * (experts // groups), top_k=top_k),
            msg("type a group_limit of at most n_groups with at least top_k experts in its groups"),
            SEE,
        )  # fmt: skip
    if params["d_shared"] is not None and not params["shared_experts"]:
        yield Problem(
            "d_shared",
            msg("d_shared is given, but there are no shared_experts"),
            msg("add shared_experts: 1, or delete d_shared"),
            SEE,
        )
    if params["gate_limit"] is not None and not params["gated"]:
        yield Problem(
            "gate_limit",
            msg("gate_limit is given, but experts have no gates"),
            msg("delete gate_limit, or type gated: true"),
            SEE,
        )
    if params["shared_gate"] and not params["shared_experts"]:
        yield Problem(
            "shared_gate",
            msg("shared_gate is given, but there are no shared_experts"),
            msg("add shared_experts: 1, or delete shared_gate"),
            SEE,
        )
    if params["capacity_drop_policy"] is not None and params["capacity_factor"] is None:
        yield Problem(
            "capacity_drop_policy",
            msg("capacity_drop_policy has a meaning only with capacity_factor"),
            msg("add capacity_factor: 1.25, or delete capacity_drop_policy"),
            SEE,
        )
    yield from routing_checks(params)


def routing_checks(params: Params) -> Iterator[Problem]:
    """Words that only one of the two routings knows."""
    if params["routing"]["type"] == "learned":
        if params["routing"]["hash_salt"]:
            yield Problem(
                "routing.hash_salt",
                msg("hash_salt has a meaning only with type: hash"),
                msg("add type: hash to routing, or delete hash_salt"),
                SEE,
            )
        return
    idle = {
        "bias_correction.enabled": params["bias_correction"]["enabled"],
        "balance.group_limit": params["balance"]["group_limit"],
        "balance.sequence_aux_coef": params["balance"]["sequence_aux_coef"],
        "load_balance_coef": params["load_balance_coef"],
    }
    for word, value in idle.items():
        if value:
            yield Problem(
                word,
                msg("a hash chooses the experts, so {word} can't change which", word=word),
                msg("delete {word}, or let routing.type be learned", word=word),
                SEE,
            )


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, those that a token touches, and FLOPs."""
    router = params["experts"] * dims.d_model
    matrices = 3 if params["gated"] else 2
    expert = matrices * dims.d_model * params["d_expert"]
    shared = matrices * dims.d_model * (params["d_shared"] or 0)
    if params["shared_gate"]:
        router += dims.d_model
    active = router + params["top_k"] * expert + shared
    return Cost(
        params=router + params["experts"] * expert + shared,
        active_params=active,
        flops_per_token=2 * active,
        safe_params=router,
    )


MOE = Primitive(
    name="moe",
    kind="ffn",
    summary="mixture of experts: a router sends each token to a few of them",
    paper="arXiv:1701.06538",
    module="eulerstack_mixers.modules.moe:MixtureOfExperts",
    reference="eulerstack_mixers.reference.moe:mixture_of_experts",
    inline=WORDS,
    resolve=resolve,
    checks=checks,
    cost=cost,
    routes=True,
    routed_units=lambda params: params["experts"],
    config_fields=lambda params, model: {
        **hidden_act(params, model),
        "num_experts": params["experts"],
        "num_experts_per_tok": params["top_k"],
    },
)
