"""Test-time training: the state is a small model, trained on each token as it is read.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  the fast weights of every head in float32, P = d² + d scalars a head for a linear inner model and
        2·d·hidden + hidden + d for an MLP (d = head_dim); as much again for the gradient accumulated inside a
        mini-batch of more than one token, and twice as much again for adamw's two moments; 8 bytes count the tokens
        where a mini-batch or adamw needs it. Bytes do not grow with time
Cost:   parameters 4·d_model·n_heads·d for the projections, (d_model + 1)·n_heads for the learning rate of a token,
        mini_batch for the rates inside a mini-batch, n_heads·P for the fast weights' beginning, 4·n_heads·d for the
        two norms; FLOPs per token are those of the recurrence: 2 per weight of the projections, and per head
        2·(2·steps + 1)·d² for a linear inner model, 2·(5·steps + 2)·d·hidden for an MLP
Errors: CompatibilityError when a linear inner model is given a hidden width, and when adamw or several inner steps
        are given a mini-batch of more than one token
Source: Sun et al. 2024, arXiv:2407.04620, section 2 and appendix A
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import CacheLayer, Cost, Dims, Primitive, Problem

Params = Mapping[str, Any]

PUBLISHED_MINI_BATCH = 16
PUBLISHED_LR = {"linear": 1.0, "mlp": 0.1}
ADAMW_LR = 0.001
HIDDEN_FACTOR = 4
SEE = "reference/errors.md#ttt"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Parameters of the test-time training layer.",
    "properties": {
        "inner_model": {
            "type": "object",
            "description": "The model that is trained while reading; its weights are the state.",
            "default": {},
            "properties": {
                "type": {
                    "type": "string",
                    "enum": ["linear", "mlp"],
                    "default": "linear",
                    "description": "linear: one matrix and a bias a head; mlp: two, with gelu_tanh between them.",
                },
                "hidden": {
                    "type": ["integer", "null"],
                    "minimum": 1,
                    "maximum": 2**20,
                    "default": None,
                    "description": "mlp: its width between the two matrices, in channels a head; null: 4 * head_dim.",
                },
            },
            "additionalProperties": False,
        },
        "inner_optimizer": {
            "type": "string",
            "enum": ["sgd", "adamw"],
            "default": "sgd",
            "description": (
                "What trains the inner model: sgd, as published, or adamw (betas 0.9 and 0.999, weight decay 0.01), "
                "which runs token by token."
            ),
        },
        "inner_lr": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "maximum": 1000,
            "default": None,
            "description": (
                "Base learning rate of the inner model, before the learned rate of each token; null: 1.0 for linear, "
                "0.1 for mlp, 0.001 with adamw."
            ),
        },
        "inner_steps_per_token": {
            "type": "integer",
            "minimum": 1,
            "maximum": 64,
            "default": 1,
            "description": "Training steps on each token; more than one run token by token.",
        },
        "mini_batch": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": 65536,
            "default": None,
            "description": (
                "Tokens whose gradients are taken at the same fast weights, so that they are computed together; null: "
                "16 for sgd with one step, otherwise 1, which is then the only value."
            ),
        },
    },
    "additionalProperties": False,
}


def is_scan(params: Params) -> bool:
    """Whether the inner steps have no dual form, so that they run token by token."""
    return params["inner_optimizer"] == "adamw" or params["inner_steps_per_token"] > 1


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """Fills the words whose default depends on others: hidden, inner_lr, mini_batch."""
    inner, rate, size = dict(params["inner_model"]), params["inner_lr"], params["mini_batch"]
    if inner["type"] == "mlp" and inner["hidden"] is None:
        inner["hidden"] = HIDDEN_FACTOR * model["model"]["head_dim"]
    if rate is None:
        rate = ADAMW_LR if params["inner_optimizer"] == "adamw" else PUBLISHED_LR[inner["type"]]
    if size is None:
        size = 1 if is_scan(params) else PUBLISHED_MINI_BATCH
    return {**params, "inner_model": inner, "inner_lr": rate, "mini_batch": size}


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Words that would have no effect, or no meaning."""
    inner = params["inner_model"]
    if inner["type"] == "linear" and inner["hidden"] is not None:
        yield Problem(
            "inner_model.hidden",
            msg("a linear inner model has no hidden width"),
            msg("Delete hidden, or type 'type: mlp'"),
            SEE,
        )
    if is_scan(params) and params["mini_batch"] != 1:
        yield Problem(
            "mini_batch",
            msg("adamw and several inner steps run token by token, so mini_batch can't be {size}",
                size=params["mini_batch"]),
            msg("Type mini_batch: 1, or use sgd with one inner step"),
            SEE,
        )  # fmt: skip


def fast_weights(head_dim: int, params: Params) -> int:
    """Scalars in the inner model of one head."""
    hidden = params["inner_model"]["hidden"]
    if params["inner_model"]["type"] == "linear":
        return head_dim**2 + head_dim
    return 2 * head_dim * hidden + hidden + head_dim


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one layer; the state is float32 whatever the model's dtype."""
    width, steps = dims.n_heads * dims.head_dim, params["inner_steps_per_token"]
    fast, adamw = dims.n_heads * fast_weights(dims.head_dim, params), params["inner_optimizer"] == "adamw"
    batched = params["mini_batch"] > 1
    projections = 4 * dims.d_model * width + dims.d_model * dims.n_heads
    if params["inner_model"]["type"] == "linear":
        inner_flops = 2 * (2 * steps + 1) * dims.head_dim**2
    else:
        inner_flops = 2 * (5 * steps + 2) * dims.head_dim * params["inner_model"]["hidden"]
    return Cost(
        params=projections + dims.n_heads + params["mini_batch"] + fast + 4 * width,
        safe_params=2 * width,
        flops_per_token=2 * projections + dims.n_heads * inner_flops,
        state_bytes_fixed=4 * fast * (1 + batched + 2 * adamw) + (8 if batched or adamw else 0),
    )


TTT_LAYER = Primitive(
    name="ttt_layer",
    kind="mixer",
    summary="test-time training: the state is a small model, trained on the tokens while it reads them",
    paper="arXiv:2407.04620",
    module="eulerstack_ttt.modules.ttt:TTTLayer",
    reference="eulerstack_ttt.reference.ttt:ttt_layer",
    schema=SCHEMA,
    block="ttt",
    resolve=resolve,
    checks=checks,
    cost=cost,
    cache=lambda params: CacheLayer("eulerstack_state"),
    state=("ssm_state",),
)
