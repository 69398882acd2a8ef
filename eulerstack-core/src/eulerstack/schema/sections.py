"""The core's own words: every section of the language except what primitives bring along.

Descriptions are `Message`s, so that they are in the catalogs; `assemble` renders them.
"""

from __future__ import annotations

from typing import Any

from eulerstack.errors import Message, msg

Schema = dict[str, Any]

SCHEMA_VERSION = 1
MAX_LAYERS = 100_000
TEMPLATE_NAME = r"^[A-Za-z0-9_.-]{1,100}$"
# Names of what a primitive holds become parts of modules' names.
HELD_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
DTYPES = ("bfloat16", "float16", "float32")
NORM_POSITIONS = ("pre", "post", "sandwich", "output")
DEFAULT_NORM_POSITION = "pre"
# What a spec means that names no type, by the kind of primitive; of a mixer and an ffn the type must be given.
DEFAULT_TYPES = {"norm": "rmsnorm", "residual": "sequential", "head": "causal_lm", "position": "rope"}
DEFAULT_TARGET = "huggingface"
MAX_D_FF = 2**24
# What an entry of the schedule may be, by the word that says so, and the words that only such an entry has.
STAGE_WORDS: dict[str, tuple[str, ...]] = {
    "template": ("repeat", "override", "depth_gating"),
    "parallel": ("merge",),
    "integrator": (),
}


def word(kind: str | list[str], description: Message, **keywords: Any) -> Schema:
    """The schema of one word."""
    return {"type": kind, **keywords, "description": description}


def section(description: Message, properties: Schema, required: tuple[str, ...] = (), **keywords: Any) -> Schema:
    """The schema of a mapping with fixed words."""
    schema = {"type": "object", "description": description, "properties": properties, **keywords}
    return {**schema, "required": list(required)} if required else schema


def model() -> Schema:
    """Sizes shared by all layers."""
    properties = {
        "name": word("string", msg("Name of the model."), minLength=1, maxLength=200, examples=["my-llm"]),
        "d_model": word(
            "integer", msg("Width of the residual stream, in channels."), minimum=1, maximum=2**20, examples=[2048]
        ),
        "vocab_size": word("integer", msg("Rows of the embedding table."), minimum=1, maximum=2**24, examples=[32000]),
        "max_seq_len": word("integer", msg("Longest context, in tokens."), minimum=1, maximum=2**30, examples=[4096]),
        "n_heads": word("integer", msg("Query heads of a mixer."), minimum=1, maximum=2**20, examples=[16]),
        "n_kv_heads": word(
            ["integer", "null"],
            msg("Key and value heads; divides n_heads. null: n_heads."),
            minimum=1,
            maximum=2**20,
            default=None,
            examples=[4],
        ),
        "mlp_ratio": word(
            "number", msg("Width of the feed-forward blocks over d_model."), exclusiveMinimum=0, default=4
        ),
        "d_ff": word(
            ["integer", "null"],
            msg("Width of the feed-forward blocks, in channels. null: mlp_ratio * d_model, rounded."),
            minimum=1,
            maximum=MAX_D_FF,
            default=None,
            examples=[8192],
        ),
        "head_dim": word(
            ["integer", "null"],
            msg("Width of one head, in channels. null: d_model / n_heads."),
            minimum=1,
            maximum=2**20,
            default=None,
            examples=[128],
        ),
        "norm_eps": word(
            "number",
            msg("Added under the root in every norm that does not say its own eps."),
            exclusiveMinimum=0,
            default=1e-5,
        ),
        "dtype": word("string", msg("Number type of the exported weights."), enum=list(DTYPES), default="bfloat16"),
        "residual_multiplier": word(
            "number", msg("Factor on every branch before it is added to the residual stream."), default=1.0
        ),
        "initializer_range": word(
            "number", msg("Standard deviation of the initial weights."), exclusiveMinimum=0, default=0.02
        ),
        "family_hint": word(
            ["string", "null"],
            msg("Family that the model is meant to resemble; realism rules compare the spec with it."),
            maxLength=200,
            default=None,
            examples=["llama"],
        ),
        "target_params": word(
            ["integer", "null"],
            msg("Number of parameters aimed at; realism rules compare the real number with it."),
            minimum=1,
            default=None,
            examples=[1_000_000_000],
        ),
    }
    required = ("name", "d_model", "vocab_size", "max_seq_len", "n_heads")
    return section(msg("Sizes that all layers share."), properties, required)


def tokenizer_contract() -> Schema:
    """The tokenizer that the model is made for."""
    properties = {
        "type": word("string", msg("Kind of tokenizer."), const="hf", default="hf"),
        "pretrained": word(
            ["string", "null"],
            msg("Name or folder of a HuggingFace tokenizer."),
            maxLength=1000,
            default=None,
            examples=["gpt2"],
        ),
        "add_bos": word("boolean", msg("Put the beginning token before every text."), default=False),
        "add_eos": word("boolean", msg("Put the end token after every text."), default=False),
        "pad_token": word(
            ["string", "null"], msg("Token that fills up short texts."), maxLength=200, default=None, examples=["<pad>"]
        ),
    }
    return section(msg("The tokenizer that the model is made for."), properties, examples=[{"type": "hf"}])


def embedding() -> Schema:
    """The embedding's own words; those of the positions are added by `assemble`."""
    properties = {
        "type": word("string", msg("Kind of embedding."), const="learned", default="learned"),
        "positional": word("string", msg("How positions are told apart."), default=DEFAULT_TYPES["position"]),
        "tie_word_embeddings": word(
            ["boolean", "null"],
            msg("Whether the head uses the embedding's table. null: what head.tie_weights says."),
            default=None,
        ),
        "scale": {
            "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "const": "sqrt_d_model"}],
            "default": 1.0,
            "description": msg("Factor on the embeddings: a number, or sqrt_d_model."),
        },
    }
    examples = [{"type": "learned", "positional": "rope"}]
    return section(msg("Token embeddings and positions."), properties, examples=examples)


def norm_position() -> Schema:
    """Where a layer's norms stand."""
    return word(
        "string",
        msg(
            "pre: before each block; post: after each sum; output: on each block's output before the sum; "
            "sandwich: before each block and on its output."
        ),
        enum=list(NORM_POSITIONS),
        default=DEFAULT_NORM_POSITION,
    )


def template(mixer: Schema, ffn: Schema, norm: Schema, residual: Schema, memory: Schema) -> Schema:
    """One layer template."""
    # That file is built from this one.
    from eulerstack.schema.wrapping import shape_change

    state = {
        "kv_cache": word("boolean", msg("Whether the mixer keeps keys and values while decoding.")),
        "ssm_state": word("boolean", msg("Whether the mixer keeps a recurrent state while decoding.")),
    }
    properties = {
        "mixer": mixer,
        "ffn": ffn,
        "norm": norm,
        "residual": residual,
        "memory": memory,
        "state": section(msg("What the mixer keeps while decoding, as a check."), state),
        "shape_change": shape_change(),
    }
    return section(msg("A named kind of layer."), properties, ("mixer", "ffn"))


def integrator_words() -> Schema:
    """The words that every integrator has beside its type, `body` apart, which names a template."""
    return {
        "steps": word("integer", msg("Steps that the stage takes."), minimum=1, maximum=MAX_LAYERS, examples=[4]),
        "output": word(
            "string",
            msg("What the stage hands on: token, or hidden; what they mean is its type's business."),
            enum=["token", "hidden"],
            default="token",
        ),
    }


def shared_params(kind: str) -> Schema:
    """The words beside the type of a primitive that are parameters of every type of its kind."""
    return integrator_words() if kind == "integrator" else {}


def schedule_entry(run: Schema, merge: Schema, integrator: Schema) -> Schema:
    """One entry of the schedule; `run` is that of a run of layers."""
    stream = {
        "stream": word("string", msg("Name of the stream."), pattern=TEMPLATE_NAME, examples=["fast"]),
        "body": {
            "type": "array",
            "description": msg("The layers of the stream, as in the schedule; no stages."),
            "minItems": 1,
            "items": run,
            "examples": [[{"template": "decoder", "repeat": 6}]],
        },
    }
    streams = {
        "type": "array",
        "description": msg("Streams of layers that all read the same, at least two."),
        "minItems": 2,
        "items": section(msg("A stream of layers."), stream, ("stream", "body")),
    }
    properties = {**run["properties"], "parallel": streams, "merge": merge, "integrator": integrator}
    kinds = [{"required": [name]} for name in STAGE_WORDS]
    entry = section(msg("A run of equal layers, or a stage that holds layers."), properties, anyOf=kinds)
    return {**entry, "additionalProperties": False}


def run_of_layers(window: Schema, attn_drop: Schema, activation: Schema) -> Schema:
    """A run of equal layers; the schemas are those of the overridable words of mixers and ffns."""
    override = {
        "residual": section(
            msg("Changes to the residual."),
            {"scaling": word("number", msg("Factor on each branch."))},
        ),
        "attention": section(msg("Changes to attention."), {"window": window, "attn_drop": attn_drop}),
        "norm": section(
            msg("Changes to the norms."),
            {
                "type": word("string", msg("Kind of norm."), examples=["rmsnorm"]),
                "position": {key: value for key, value in norm_position().items() if key != "default"},
            },
        ),
        "ffn": section(msg("Changes to the feed-forward block."), {"activation": activation}),
    }
    # That file is built from this one.
    from eulerstack.schema.wrapping import depth_gating

    properties = {
        "template": word("string", msg("Name of a layer template."), examples=["decoder"]),
        "repeat": word("integer", msg("Number of layers in a row."), minimum=1, maximum=MAX_LAYERS, default=1),
        "override": section(
            msg("Words that these layers change; the number of parameters must stay the same."), override
        ),
        "depth_gating": depth_gating(),
    }
    return section(msg("A run of equal layers."), properties, ("template",))


def let() -> Schema:
    """Named numbers."""
    return {
        "type": "object",
        "description": msg("Numbers with names, for use in expressions."),
        "additionalProperties": {"type": "number"},
    }


def ir_words(name: str) -> tuple[str, ...]:
    """The words of a section that the IR holds there: all but those that only serve to find others, or a primitive."""
    # That file is built from this one.
    from eulerstack.schema import phases, training

    schemas = {
        "model": model,
        "tokenizer_contract": tokenizer_contract,
        "embedding": embedding,
        "training_hints": training.training_hints,
        "compatibility": training.compatibility,
        "execution_modes": lambda: phases.execution_modes()["items"],
        "transition": phases.transition,
        "tissue": training.tissue,
    }
    return tuple(word for word in schemas[name]()["properties"] if word not in ("mlp_ratio", "positional"))
