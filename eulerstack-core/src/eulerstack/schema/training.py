"""The words for whoever trains the model: `training_hints`, `compatibility` and `tissue`.

What they do is in `eulerstack.hf` (initial weights, optimizer groups, number types, rounded weights); what
contradicts what is in `schema/training_checks.py`.
"""

from __future__ import annotations

from eulerstack.errors import msg
from eulerstack.schema.sections import DEFAULT_TARGET, Schema, section, word

INIT_SCHEMES = (
    "normal",
    "truncated_normal",
    "scaled_normal",
    "lecun_normal",
    "xavier_normal",
    "xavier_uniform",
    "orthogonal",
)
ROLES = ("hidden", "query", "output", "router", "probe", "embedding", "readout", "norm", "vector")
OPTIMIZERS = ("adamw", "muon", "hybrid")
CONNECTIVITY = ("none", "ring", "full", "feedforward")
QUANT_SCOPES = ("all", "mixer", "ffn")


def training_hints() -> Schema:
    """How the weights begin, and with what an optimizer should change them."""
    properties = {
        "init": word(
            "string",
            msg(
                "How the matrices of linear layers begin. normal: deviation initializer_range; truncated_normal: the "
                "same, cut at three deviations, embeddings too; scaled_normal: normal, and matrices that write to the "
                "residual stream divided by the square root of twice the layers; the others are named after their "
                "authors and depend on the matrix's shape alone."
            ),
            enum=list(INIT_SCHEMES),
            default="normal",
        ),
        "dropout": word(
            "number",
            msg("Probability of dropping a channel after the embedding and on every branch's output, while training."),
            minimum=0,
            exclusiveMaximum=1,
            default=0.0,
        ),
        "checkpointing": word(
            "boolean",
            msg("While training, compute each layer again in the backward pass instead of keeping its activations."),
            default=False,
        ),
        "seed": word("integer", msg("Seed of the initial weights."), minimum=0, maximum=2**63 - 1, default=0),
        "router_aux_loss_coef": word(
            "number",
            msg("Factor on all losses of routers, which have coefficients of their own besides."),
            minimum=0,
            maximum=1000,
            default=1.0,
        ),
        "lr_peak": word(
            "number", msg("Learning rate after the warm-up, before multipliers."), exclusiveMinimum=0, default=3e-4
        ),
        "lr_floor_ratio": word(
            "number",
            msg("Learning rate at the end of the cosine, over lr_peak."),
            minimum=0,
            maximum=1,
            default=0.1,
        ),
        "betas": word(
            "array",
            msg("AdamW's decay rates of the mean gradient and of its mean square."),
            items={"type": "number", "minimum": 0, "exclusiveMaximum": 1},
            minItems=2,
            maxItems=2,
            default=[0.9, 0.95],
        ),
        "weight_decay": word(
            "number",
            msg("Weight decay of matrices; norms, biases and other vectors have none."),
            minimum=0,
            default=0.1,
        ),
        "grad_clip": word(
            "number", msg("Largest norm of all gradients together; 0: no limit."), minimum=0, default=1.0
        ),
        "warmup_steps_ratio": word(
            "number",
            msg("Steps in which the learning rate rises from 0, over all steps."),
            minimum=0,
            exclusiveMaximum=1,
            default=0.01,
        ),
        "router_lr_multiplier": word(
            "number", msg("Factor on the learning rate of routers."), exclusiveMinimum=0, default=1.0
        ),
        "optimizer": word(
            "string",
            msg(
                "adamw: AdamW for everything. hybrid: Muon for hidden matrices, AdamW for the rest. muon: Muon for all "
                "matrices, embeddings, readout and routers too, AdamW for the rest."
            ),
            enum=list(OPTIMIZERS),
            default="adamw",
        ),
        "optimizer_groups": word(
            "array",
            msg("Exceptions for some parameters; of those that fit a parameter the first one counts."),
            items=_optimizer_group(),
            default=[],
            examples=[[{"role": "embedding", "lr_multiplier": 0.1}]],
        ),
        "muon": _muon(),
        "scaling": _scaling(),
        "differentiation_objectives": _differentiation_objectives(),
    }
    return section(msg("Hints for training."), properties)


def _optimizer_group() -> Schema:
    properties = {
        "match": word(
            "string",
            msg("Pattern of parameters' names, with * for any text."),
            minLength=1,
            maxLength=500,
            default="*",
            examples=["model.layers.0.*"],
        ),
        "role": word(
            ["string", "null"],
            msg("Role of the parameters; null: any."),
            enum=[*ROLES, None],
            default=None,
        ),
        "optimizer": word(
            ["string", "null"],
            msg("Optimizer of the matrices among them; null: as optimizer says."),
            enum=["adamw", "muon", None],
            default=None,
        ),
        "lr_multiplier": word("number", msg("Factor on their learning rate."), exclusiveMinimum=0, default=1.0),
        "weight_decay": word(
            ["number", "null"], msg("Their weight decay; null: as weight_decay says."), minimum=0, default=None
        ),
    }
    return section(msg("Some parameters, and what is different for them."), properties)


def _muon() -> Schema:
    properties = {
        "lr_peak": word(
            ["number", "null"],
            msg("Learning rate of Muon; null: that of training_hints."),
            exclusiveMinimum=0,
            default=None,
            examples=[0.02],
        ),
        "momentum": word(
            "number", msg("Decay rate of the mean gradient."), minimum=0, exclusiveMaximum=1, default=0.95
        ),
        "nesterov": word("boolean", msg("Whether the momentum looks one step ahead."), default=True),
        "ns_steps": word(
            "integer", msg("Newton-Schulz steps that make an update orthogonal."), minimum=1, maximum=99, default=5
        ),
        "adjust_lr": word(
            "string",
            msg(
                "match_rms_adamw: updates as large as AdamW's, so that its learning rate fits; original: by the square "
                "root of rows over columns, at least 1."
            ),
            enum=["match_rms_adamw", "original"],
            default="match_rms_adamw",
        ),
    }
    return section(msg("Words of the Muon optimizer."), properties, default={})


def _scaling() -> Schema:
    properties = {
        "parametrization": word(
            "string",
            msg(
                "standard, or mup: initial weights, attention scale, logits and learning rates follow the width, so "
                "that what was tuned at base_width holds at d_model."
            ),
            enum=["standard", "mup"],
            default="standard",
        ),
        "base_width": word(
            ["integer", "null"],
            msg("d_model at which the hints were tuned; mup needs it."),
            minimum=1,
            maximum=2**20,
            default=None,
            examples=[256],
        ),
    }
    return section(msg("How hints tuned at one width hold at another."), properties, default={})


def _differentiation_objectives() -> Schema:
    properties = {
        "usage_probe_coef": word(
            "number",
            msg(
                "Factor on the cross-entropy of a linear probe that guesses from the output of an expert or a branch "
                "which one has made it; it trains both. 0: there is no probe."
            ),
            minimum=0,
            maximum=1000,
            default=0.0,
            examples=[0.01],
        ),
    }
    return section(msg("What makes experts and branches differ."), properties, default={})


def compatibility() -> Schema:
    """What the model is compiled for, and its number types."""
    properties = {
        "compile_target": word("string", msg("Back end of the compiler."), default=DEFAULT_TARGET),
        "dtype_policy": word(
            "string",
            msg("uniform: all weights in model.dtype; layered_safe: norms and routers stay in float32."),
            enum=["uniform", "layered_safe"],
            default="uniform",
        ),
        "quant_aware_training": _quant_aware_training(),
    }
    return section(msg("What the model is compiled for."), properties)


def _quant_aware_training() -> Schema:
    properties = {
        "enabled": word(
            "boolean", msg("Whether to train with rounded weights; needs the package torchao."), default=False
        ),
        "dtype": word(
            "string", msg("Number type that weights are rounded to."), enum=["fp4", "fp8", "int8"], default="int8"
        ),
        "scope": word(
            "string",
            msg("The linear layers it concerns: of all blocks, or of one kind."),
            enum=list(QUANT_SCOPES),
            default="all",
        ),
        "dequant_to": word(
            ["string", "null"],
            msg("Number type of the model once training is over; null: model.dtype."),
            enum=["bfloat16", "float16", "float32", None],
            default=None,
        ),
    }
    return section(msg("Training that knows of later quantization."), properties, default={})


def tissue() -> Schema:
    """Groups of templates, as metadata."""
    column = {
        "name": word("string", msg("Name of the column."), minLength=1, maxLength=200, examples=["binding"]),
        "templates": word(
            "array",
            msg("Layer templates of the column; a template belongs to one column."),
            items={"type": "string", "description": msg("Name of a layer template."), "examples": ["decoder"]},
            minItems=1,
        ),
        "role": word(["string", "null"], msg("What the column is for."), maxLength=200, default=None),
    }
    properties = {
        "columns": word(
            "array",
            msg("The columns, in order."),
            items=section(msg("One group of templates."), column, ("name", "templates")),
            minItems=1,
        ),
        "connectivity": word(
            "string",
            msg(
                "Which columns are neighbours. feedforward: each and the next; ring: these, and the last and the "
                "first; full: all."
            ),
            enum=list(CONNECTIVITY),
            default="none",
        ),
    }
    return section(msg("Columns of templates, exported as metadata."), properties, ("columns",))
