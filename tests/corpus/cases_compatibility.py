"""Specs whose every word is legal, but which contradict themselves or what is installed."""

from __future__ import annotations

from tests.corpus.harness import Case, appended, changed, incompatible

NOT_YET = "a word of the language that this version does not implement"


def schedule(*lines: str) -> str:
    """The base spec with this schedule."""
    return changed("  - template: decoder\n    repeat: 2\n", "".join(f"  {line}\n" for line in lines))


BRANCHES = "layer_templates.decoder.mixer.branched.branches"


def branches(branch: str, selector: str = "{}") -> str:
    """The base spec with this branch, and one of retention, for a mixer."""
    block = f"{{branches: {{{branch}, b: {{type: retnet}}}}, selector: {selector}}}"
    return changed(
        "      type: attention\n      attention:\n        window: null\n",
        f"      type: branched\n      branched: {block}\n",
    )


def override(text: str) -> str:
    """The base spec whose one schedule entry has this override."""
    return schedule("- template: decoder", f"  override: {text}")


CASES: list[Case] = [
    incompatible(
        "an undefined template",
        changed("template: decoder", "template: §encoder"),
        ("layer_schedule[0].template", "no template", "template: decoder"),
    ),
    incompatible(
        "an undefined template like nothing",
        changed("template: decoder", "template: §zzz"),
        ("layer_schedule[0].template", "no template", "one of: decoder"),
    ),
    incompatible(
        "a near-miss mixer",
        changed("type: attention", "type: §atention"),
        ("layer_templates.decoder.mixer.type", "no installed plugin provides the mixer", "type: attention"),
    ),
    incompatible(
        "a mixer like nothing",
        changed("type: attention", "type: §zzz"),
        ("layer_templates.decoder.mixer.type", "no installed plugin", "one of: attention"),
    ),
    incompatible(
        "a third party's mixer",
        changed("type: attention", "type: §vendor.acme.gla"),
        ("layer_templates.decoder.mixer.type", "vendor.acme.gla", "Install the package"),
    ),
    incompatible(
        "a near-miss ffn",
        changed("type: gated_mlp", "type: §gatedmlp"),
        ("layer_templates.decoder.ffn.type", "provides the ffn gatedmlp", "type: gated_mlp"),
    ),
    incompatible(
        "a near-miss norm",
        changed("type: rmsnorm", "type: §rms_norm"),
        ("layer_templates.decoder.norm.type", "rms_norm", "type: rmsnorm"),
    ),
    incompatible(
        "a near-miss residual",
        changed("type: sequential", "type: §serial"),
        ("layer_templates.decoder.residual.type", "serial", "sequential"),
    ),
    incompatible(
        "a near-miss positional",
        changed("positional: rope", "positional: §rotary"),
        ("embedding.positional", "provides the position rotary", "rope"),
    ),
    incompatible(
        "a near-miss head",
        changed("type: causal_lm", "type: §casual_lm"),
        ("head.type", "provides the head casual_lm", "type: causal_lm"),
    ),
    incompatible(
        "an unknown target",
        appended("compatibility:\n  compile_target: §hf\n"),
        ("compatibility.compile_target", "hf", "compile_target: huggingface"),
    ),
    incompatible(
        "branches inside of branches",
        branches("a: {type: §branched, branched: {branches: {x: {type: attention}, y: {type: retnet}}}}"),
        (f"{BRANCHES}.a.type", "can't stand inside of branched", "one of: attention"),
    ),
    incompatible(
        "a near-miss mixer in a branch",
        branches("a: {type: §atention}"),
        (f"{BRANCHES}.a.type", "no installed plugin provides the mixer", "type: attention"),
    ),
    incompatible(
        "more chosen branches than there are",
        branches("a: {type: attention}", "{type: top_k, top_k: §3}"),
        ("layer_templates.decoder.mixer.branched.selector.top_k", "larger than the number of branches", "top_k: 2"),
    ),
    incompatible(
        "a choice that a gate does not make",
        branches("a: {type: attention}", "{type: learned_gate, top_k: §2}"),
        ("layer_templates.decoder.mixer.branched.selector.top_k", "chooses nothing", "'type: top_k'"),
    ),
    incompatible(
        "what a branch itself objects to",
        branches("a: {type: attention, attention: {latent_dim: §64}}"),
        (f"{BRANCHES}.a.attention.latent_dim", "latent_dim", "latent_dim"),
    ),
    incompatible(
        "passes of Sinkhorn that nothing makes",
        changed("type: sequential", "type: hyper_connection\n      hyper: {mixing: unconstrained, sinkhorn_iters: §9}"),
        ("layer_templates.decoder.residual.hyper.sinkhorn_iters", "unconstrained", "Delete sinkhorn_iters"),
    ),
    incompatible(
        "a choice among blocks that are all seen",
        changed("window: null", "compression: {type: hca, top_k_blocks: §3}"),
        ("layer_templates.decoder.mixer.attention.compression.top_k_blocks", "every block", "delete top_k_blocks"),
    ),
    incompatible(
        "native sparse attention with gaps in its window",
        changed(
            "attention:\n        window: null",
            "attention: {window: 8, window_mode: §dilated, window_dilation: 2, compression: {type: nsa_learned}}",
        ),
        ("layer_templates.decoder.mixer.attention.window_mode", "a window of its own", "window_mode: nsa"),
    ),
    incompatible(
        "a rationale for nothing",
        appended("execution_modes:\n  - {name: think, max_tokens: 9, per_token_rationale: §true}\n"),
        ("execution_modes[0].per_token_rationale", "needs a phase after it", "per_token_rationale: false"),
    ),
    incompatible(
        "a near-miss integrator",
        schedule("- integrator: {type: §ode_rk, steps: 4, body: decoder}"),
        ("layer_schedule[0].integrator.type", "provides the integrator ode_rk", "type: ode_rk4"),
    ),
    incompatible(
        "a probe with nothing to tell apart",
        appended("training_hints:\n  differentiation_objectives: { usage_probe_coef: §0.1 }\n"),
        ("training_hints.differentiation_objectives.usage_probe_coef", "no layer routes", "usage_probe_coef: 0"),
    ),
    incompatible(
        "mup without its base",
        appended("training_hints:\n  §scaling: {parametrization: mup}\n"),
        ("training_hints.scaling", "mup needs the width", "base_width: 64"),
    ),
    incompatible(
        "a base width without mup",
        appended("training_hints:\n  scaling: {base_width: §256}\n"),
        ("training_hints.scaling.base_width", "only with parametrization: mup", "delete base_width"),
    ),
    incompatible(
        "words of an optimizer that nobody has",
        appended("training_hints:\n  §muon: {momentum: 0.5}\n"),
        ("training_hints.muon", "no parameter is trained with it", "optimizer: hybrid"),
    ),
    incompatible(
        "a column of a template that there is not",
        appended("tissue:\n  columns:\n  - {name: a, templates: [§decodr]}\n"),
        ("tissue.columns[0].templates[0]", "there is no template", "decoder"),
    ),
    incompatible(
        "a template in two columns",
        appended("tissue:\n  columns:\n  - {name: a, templates: [decoder]}\n  - {name: b, templates: [§decoder]}\n"),
        ("tissue.columns[1].templates[0]", "already", "Delete it"),
    ),
    incompatible(
        "heads that do not divide the width",
        changed("n_heads: 4", "n_heads: §5"),
        ("model.n_heads", "d_model 64 can't be divided by n_heads 5", "n_heads: 4"),
    ),
    incompatible(
        "key heads that do not divide the heads",
        changed("n_heads: 4", "n_heads: 4\n  n_kv_heads: §3"),
        ("model.n_kv_heads", "n_heads 4", "n_kv_heads: 2"),
    ),
    incompatible(
        "more key heads than heads",
        changed("n_heads: 4", "n_heads: 4\n  n_kv_heads: §8"),
        ("model.n_kv_heads", "n_heads 4", "n_kv_heads: 4"),
    ),
    incompatible(
        "an odd rotated width",
        changed("n_heads: 4", "n_heads: 4\n  head_dim: 15").replace("embedding:", "§embedding:"),
        ("embedding.rope_partial_factor", "rotate", "even"),
    ),
    incompatible(
        "a state that the mixer has not",
        changed("kv_cache: true", "ssm_state: §true"),
        ("layer_templates.decoder.state.ssm_state", "attention keeps no ssm_state", "ssm_state: false"),
    ),
    incompatible(
        "a state that the mixer does have",
        changed("kv_cache: true", "kv_cache: §false"),
        ("layer_templates.decoder.state.kv_cache", "attention does keep kv_cache", "kv_cache: true"),
    ),
    incompatible(
        "rotary words without rotary positions",
        changed("positional: rope", "positional: alibi\n  rope_theta: §1e4"),
        ("embedding.rope_theta", "belongs to rope, but positional is alibi", "Delete rope_theta"),
    ),
    incompatible(
        "a sliding mode without a window",
        changed("window: null", "window_mode: §sliding"),
        ("layer_templates.decoder.mixer.attention.window_mode", "no window", "window: 4096"),
    ),
    incompatible(
        "an override of the mixer's type",
        override("{§mixer: {type: mamba}}"),
        ("layer_schedule[0].override.mixer", "can't change mixer", "new template"),
    ),
    incompatible(
        "an override of a bias",
        override("{attention: {qkv_bias: §true}}"),
        ("layer_schedule[0].override.attention.qkv_bias", "can't change", "attention.window"),
    ),
    incompatible(
        "an override that adds parameters",
        override("{norm: {type: layernorm}}").replace("  override", "  §override"),
        ("layer_schedule[0].override", "parameters from", "new template"),
    ),
    incompatible(
        "an override that adds norms",
        override("{norm: {position: sandwich}}").replace("  override", "  §override"),
        ("layer_schedule[0].override", "parameters from", "new template"),
    ),
    incompatible(
        "an override that drops the final norm",
        override("{norm: {position: post}}").replace("  override", "  §override"),
        ("layer_schedule[0].override", "parameters from", "new template"),
    ),
    incompatible(
        "an override with another ffn's activation",
        changed("type: gated_mlp\n      activation: swiglu", "type: mlp", override("{ffn: {activation: §swiglu}}")),
        ("layer_schedule[0].override.ffn.activation", "mlp has no activation", "activation: silu"),
    ),
    incompatible(
        "an override to a norm that is not there",
        override("{norm: {type: §groupnorm}}"),
        ("layer_schedule[0].override.norm.type", "provides the norm groupnorm", "norm"),
    ),
    incompatible(
        "several at once",
        changed("n_heads: 4", "n_heads: §5")
        .replace("type: rmsnorm", "type: §rmsnrm")
        .replace("- template: decoder", "- template: §decoders"),
        ("model.n_heads", "divided", "n_heads: 4"),
        ("layer_templates.decoder.norm.type", "rmsnrm", "rmsnorm"),
        ("layer_schedule[0].template", "no template", "decoder"),
    ),
]
