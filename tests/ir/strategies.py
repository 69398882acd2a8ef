"""Specs for tests: one small one to start from, and a strategy of random valid ones."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

Data = dict[str, Any]

MINIMAL: Data = {
    "schema_version": 1,
    "model": {"name": "small", "d_model": 32, "vocab_size": 50, "max_seq_len": 64, "n_heads": 4},
    "tokenizer_contract": {"type": "hf"},
    "embedding": {"type": "learned", "positional": "rope"},
    "layer_templates": {
        "decoder": {"mixer": {"type": "attention", "attention": {}}, "ffn": {"type": "gated_mlp"}},
    },
    "layer_schedule": [{"template": "decoder", "repeat": 2}],
    "head": {"type": "causal_lm"},
}


def minimal(**sections: Any) -> Data:
    """The small spec with sections replaced; a section's words are added when both are mappings."""
    spec = copy.deepcopy(MINIMAL)
    for name, value in sections.items():
        merge = isinstance(value, dict) and isinstance(spec.get(name), dict) and name != "layer_templates"
        spec[name] = {**spec[name], **value} if merge else value
    return spec


def decoder(**parts: Any) -> Data:
    """A template of attention and a gated block with parts replaced."""
    return {**copy.deepcopy(MINIMAL["layer_templates"]["decoder"]), **parts}


def words(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Data]:
    """A mapping that holds any of these words."""
    return st.fixed_dictionaries({}, optional=optional)


positive = st.floats(0.25, 4) | st.integers(1, 4)
fraction = st.floats(0, 0.9)
factor = st.floats(1, 64) | st.integers(1, 64)
tokens = st.integers(2, 4096)
names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda text: "${" not in text
)

scalings = st.one_of(
    st.none(),
    st.fixed_dictionaries({"type": st.just("linear"), "factor": factor}),
    st.fixed_dictionaries(
        {"type": st.just("dynamic"), "factor": factor}, optional={"original_max_seq_len": st.none() | tokens}
    ),
    st.fixed_dictionaries(
        {"type": st.just("yarn"), "factor": factor},
        optional={"beta_fast": st.floats(16, 64), "attention_factor": positive, "truncate": st.booleans()},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("longrope"),
            "short_factor": st.lists(positive, min_size=4, max_size=4),
            "long_factor": st.lists(positive, min_size=4, max_size=4),
            "original_max_seq_len": tokens,
        }
    ),
    st.fixed_dictionaries(
        {"type": st.just("llama3"), "factor": factor, "original_max_seq_len": tokens},
        optional={"high_freq_factor": st.floats(2, 8)},
    ),
)
thetas = st.floats(10, 1e6) | st.integers(10, 10**6)
attentions = words(
    qkv_bias=st.booleans(),
    o_bias=st.booleans(),
    attn_drop=fraction,
    window=st.none() | st.integers(2, 100),
    qk_norm=st.sampled_from(["none", "head", "full"]),
    softcap=st.none() | positive,
    scale=st.none() | positive,
    attention_sinks=st.none() | words(n_per_head=st.integers(1, 3), learnable=st.booleans()),
)
# Rotary lists hold four numbers, so both widths of a head are 8.
latents = st.fixed_dictionaries(
    {"latent_dim": st.integers(1, 31), "rope_head_dim": st.just(8), "qk_norm": st.just("none")},
    optional={
        "q_latent_dim": st.none() | st.integers(1, 40),
        "v_head_dim": st.none() | st.integers(1, 12),
        "latent_norm_eps": st.none() | st.floats(1e-8, 1e-2),
    },
)
gates = st.sampled_from(["swiglu", "geglu", "gelu", "gelu_tanh", "relu", "relu2", "silu"])
ffns = st.one_of(
    st.fixed_dictionaries({"type": st.just("gated_mlp")}, optional={"activation": gates, "bias": st.booleans()}),
    st.fixed_dictionaries(
        {"type": st.just("mlp")},
        optional={"activation": st.sampled_from(["gelu", "gelu_tanh", "relu", "relu2", "silu"]), "bias": st.booleans()},
    ),
)
placements = st.sampled_from(["pre", "post", "output", "sandwich"])
norms = st.one_of(
    words(position=placements, eps=st.none() | st.floats(1e-8, 1e-2), zero_centered=st.booleans()),
    st.fixed_dictionaries(
        {"type": st.just("layernorm")},
        optional={"position": placements, "eps": st.none() | st.floats(1e-8, 1e-2), "bias": st.booleans()},
    ),
)
scaling = st.floats(-4, 4) | st.integers(-4, 4)
streams = st.fixed_dictionaries({}, optional={"expand": st.integers(1, 4), "eps": st.floats(0, 1e-2)})
mixings = st.fixed_dictionaries({"mixing": st.sampled_from(["birkhoff", "unconstrained", "learned_lowrank"])})
passes = st.fixed_dictionaries({"sinkhorn_iters": st.none() | st.integers(1, 30)})
residuals = words(type=st.sampled_from(["sequential", "parallel"]), scaling=scaling) | st.fixed_dictionaries(
    {"type": st.just("hyper_connection")},
    optional={
        "scaling": scaling,
        "hyper": st.builds(lambda own, other: {**own, **other}, streams, mixings | passes),
    },
)
overrides = words(
    residual=words(scaling=st.floats(-4, 4)),
    attention=words(window=st.none() | st.integers(2, 100), attn_drop=fraction),
    ffn=words(activation=st.sampled_from(["gelu", "relu", "silu"])),
)
projections = st.sampled_from(["linear", "conv1d", "mlp"])
widths = st.fixed_dictionaries({"d_out": st.sampled_from([32, 36, 44])}, optional={"projection": projections})
# Rotary lists hold four numbers, and the four heads share out the width.
rotated_widths = st.fixed_dictionaries({"d_out": st.just(32)}, optional={"projection": projections})
gates_of_layers = words(
    enabled=st.booleans(), capacity=st.floats(0.01, 1) | st.just(1), router=st.sampled_from(["top_k", "learned_gate"])
)


def norm_overrides(norm: Data, is_last: bool) -> st.SearchStrategy[Data]:
    """Overrides of a norm that leave the number of parameters as it is."""
    changes: dict[str, st.SearchStrategy[Any]] = {}
    if norm.get("type") == "layernorm" and norm.get("bias") is False:
        changes["type"] = st.just("rmsnorm")
    if norm.get("position", "pre") in ("pre", "post") and not is_last:
        changes["position"] = st.sampled_from(["pre", "post"])
    return words(**changes)


extension_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
extensions = st.dictionaries(
    st.sampled_from(["experimental.a", "future.b.c", "vendor.acme.telemetry"]), extension_values, max_size=1
)


@st.composite
def phases(draw: st.DrawFn) -> Data:
    """No phases, or up to three with what ends them."""
    modes: list[Data] = []
    for name in draw(st.lists(names, max_size=3, unique=True)):
        mode = words(
            kv_share=st.booleans(), loss_weight=st.floats(0, 2) | st.integers(0, 2), visible_to_user=st.booleans()
        )
        modes.append({"name": name, "max_tokens": draw(tokens), **draw(mode), **draw(extensions)})
    if not modes:
        return {}
    modes[-1] |= {"kv_share": True, "visible_to_user": True}
    if len(modes) == 1:
        return {"execution_modes": modes}
    modes[-2]["per_token_rationale"] = draw(st.booleans())
    ends = [{}, {"transition": {}}, {"transition": {"type": "special_token", "token": draw(names)}}]
    return {"execution_modes": modes, **draw(st.sampled_from(ends))}


@st.composite
def specs(draw: st.DrawFn) -> Data:
    """A random valid spec of everything this version knows, at most a dozen layers."""
    positional = draw(st.sampled_from(["rope", "alibi", "learned", "none"]))
    embedding: Data = {"type": "learned", "positional": positional}
    if positional == "rope":
        embedding |= draw(words(rope_theta=thetas, rope_scaling=scalings, rope_interleaved=st.booleans()))
    embedding |= draw(words(scale=positive | st.just("sqrt_d_model"), tie_word_embeddings=st.none() | st.booleans()))
    templates: Data = {}
    for name in draw(
        st.lists(st.sampled_from(["decoder", "a.b", "1", "null", "x-2"]), min_size=1, max_size=3, unique=True)
    ):
        attention = {**draw(attentions), **draw(st.just({}) | latents)}
        if positional == "rope":
            attention |= draw(words(rope=st.none() | st.just(False) | words(theta=thetas, scaling=scalings)))
        templates[name] = {
            "mixer": {"type": "attention", "attention": {**attention, **draw(extensions)}},
            "ffn": {**draw(ffns), **draw(extensions)},
            "norm": draw(norms),
            "residual": draw(residuals),
            **draw(extensions),
        }
        if draw(st.booleans()) and templates[name]["residual"].get("type") != "hyper_connection":
            templates[name]["shape_change"] = draw(rotated_widths if positional == "rope" else widths)
    used = [*templates, *draw(st.lists(st.sampled_from(list(templates)), max_size=4))]
    entry = st.fixed_dictionaries(
        {}, optional={"repeat": st.integers(1, 3), "override": overrides, "depth_gating": gates_of_layers}
    )
    schedule: list[Data] = [
        {"template": name, **draw(entry), **draw(extensions)} for name in draw(st.permutations(used))
    ]
    for index, line in enumerate(schedule):
        change = draw(norm_overrides(templates[line["template"]]["norm"], is_last=index == len(schedule) - 1))
        if change:
            line["override"] = {**line.get("override", {}), "norm": change}
    return minimal(
        model={
            "name": draw(names),
            "max_seq_len": draw(tokens),
            **draw(
                words(
                    n_kv_heads=st.none() | st.sampled_from([1, 2, 4]),
                    d_ff=st.none() | st.integers(1, 100),
                    mlp_ratio=st.floats(0.5, 8) | st.integers(1, 8),
                    norm_eps=st.floats(1e-8, 1e-2),
                    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
                    residual_multiplier=st.floats(-4, 4),
                    family_hint=st.none() | names,
                    target_params=st.none() | st.integers(1, 10**12),
                )
            ),
            **draw(extensions),
        },
        tokenizer_contract=draw(
            words(pretrained=st.none() | names, add_bos=st.booleans(), pad_token=st.none() | names)
        ),
        embedding=embedding,
        layer_templates=templates,
        layer_schedule=schedule,
        head=draw(
            words(tie_weights=st.none() | st.booleans(), logit_softcap=st.none() | positive, logit_scale=positive)
        ),
        training_hints=draw(
            words(
                dropout=fraction,
                seed=st.integers(0, 2**63 - 1),
                init=st.sampled_from(["normal", "orthogonal"]),
                betas=st.lists(fraction, min_size=2, max_size=2),
                optimizer=st.sampled_from(["adamw", "hybrid"]),
                optimizer_groups=st.lists(words(match=st.just("*"), lr_multiplier=st.just(2.0)), max_size=2),
                scaling=st.just({"parametrization": "mup", "base_width": 3}),
            )
        ),
        **draw(phases()),
        **draw(extensions),
    )
