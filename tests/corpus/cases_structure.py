"""Words that nobody knows, and values of the wrong kind or out of range."""

from __future__ import annotations

from tests.corpus.harness import BASE, Case, appended, changed, invalid


def model(line: str) -> str:
    """The base spec with one more line in `model`."""
    return changed("  n_heads: 4\n", f"  n_heads: 4\n  {line}\n")


def attention(line: str) -> str:
    """The base spec with this line as the only one of the attention block."""
    return changed("window: null", line)


def schedule(*lines: str) -> str:
    """The base spec with this schedule."""
    return changed("  - template: decoder\n    repeat: 2\n", "".join(f"  {line}\n" for line in lines))


CASES: list[Case] = [
    invalid(
        "a near-miss key", changed("d_model: 64", "§d_modle: 64"), ("model.d_modle", "unknown key", "Type d_model")
    ),
    invalid(
        "a key in capitals", changed("d_model: 64", "§D_Model: 64"), ("model.D_Model", "unknown", "d_model instead")
    ),
    invalid(
        "a hyphen for an underscore", changed("n_heads: 4", "§n-heads: 4"), ("model.n-heads", "unknown", "n_heads")
    ),
    invalid("a near-miss section", changed("embedding:", "§embeding:"), ("embeding", "unknown", "Type embedding")),
    invalid(
        "another tool's word", changed("d_model: 64", "§hidden_size: 64"), ("model.hidden_size", "unknown", "d_model")
    ),
    invalid(
        "another tool's word elsewhere",
        model("§num_hidden_layers: 12"),
        ("model.num_hidden_layers", "unknown", "Type repeat under layer_schedule[]"),
    ),
    invalid("another tool's section", appended("§tokenizer: {}\n"), ("tokenizer", "unknown", "tokenizer_contract")),
    invalid(
        "a word in the wrong section",
        model("§rope_theta: 10000.0"),
        ("model.rope_theta", "unknown", "Move rope_theta to embedding"),
    ),
    invalid(
        "a word one level too high",
        changed("      attention:\n        window: null", "      §window: 8"),
        ("layer_templates.decoder.mixer.window", "unknown", "mixer.attention"),
    ),
    invalid("a word that is like nothing", model("§zzzz: 1"), ("model.zzzz", "unknown", "Delete zzzz")),
    invalid(
        "a colon without space in braces",
        schedule("- {§template:decoder, repeat: 2}"),
        ('layer_schedule[0]."template:decoder"', "unknown key", "Type template: decoder, with a space"),
    ),
    invalid("an empty entry", schedule("- template: decoder", "-§"), ("layer_schedule[1]", "is empty", "the dash")),
    invalid("an entry of dashes", schedule("- §- decoder"), ("layer_schedule[0]", "a mapping", "after the dash")),
    invalid(
        "a type whose block must say something, without its block",
        changed(
            "mixer:\n      type: attention\n      attention:\n        window: null", "§mixer:\n      type: branched"
        ),
        ("layer_templates.decoder.mixer.branched", "is missing", "Add branched: under"),
    ),
    invalid("an empty key", model('§"": 1'), ('model.""', "unknown", "Delete")),
    invalid("a key with a line break", model('§"a\\nb": 1'), ('model."a\\nb"', "unknown", "Delete")),
    invalid(
        "a key of ten thousand letters",
        model("§? ".replace("§", "") + "§" + "k" * 900 + "\n  : 1"),
        ('model."' + "k" * 58 + "…", "unknown", "Delete"),
    ),
    invalid(
        "a namespace without a name", model("§vendor.acme: 1"), ("model.vendor.acme", "reserved", "vendor.<vendor>")
    ),
    invalid("a namespace as a mapping", appended("§experimental:\n  x: 1\n"), ("experimental", "reserved", "one key")),
    invalid(
        "the block of another type",
        attention("window: 8\n      §mamba: {}"),
        ("layer_templates.decoder.mixer.mamba", "only the block", "Delete mamba"),
    ),
    invalid(
        "a word of another norm",
        changed("position: pre", "position: pre\n      §bias: true"),
        ("layer_templates.decoder.norm.bias", "a word of layernorm", "type: layernorm"),
    ),
    invalid(
        "a missing version",
        changed("schema_version: 1\n", "§").replace("§", ""),
        ("schema_version", "is missing", "schema_version: 1"),
        places=[(1, 1)],
    ),
    invalid(
        "a missing size",
        changed("  d_model: 64\n", "").replace("model:\n", "§model:\n", 1),
        ("model.d_model", "is missing", "Add d_model: 2048 under model"),
    ),
    invalid(
        "a missing section",
        changed("head:\n  type: causal_lm\n", ""),
        ("head", "is missing", "Add head"),
        places=[(1, 1)],
    ),
    invalid(
        "a missing mixer type",
        changed("      type: attention\n      attention:", "      attention:").replace("    mixer:", "    §mixer:"),
        ("layer_templates.decoder.mixer.type", "is missing", "type: attention"),
    ),
    invalid(
        "a missing ffn",
        changed("    ffn:\n      type: gated_mlp\n      activation: swiglu\n", "").replace(
            "  decoder:\n    mixer", "  §decoder:\n    mixer"
        ),
        ("layer_templates.decoder.ffn", "is missing", "type: "),
    ),
    invalid(
        "a schedule entry without template",
        schedule("- §repeat: 2"),
        ("layer_schedule[0].template", "is missing", "template: decoder"),
    ),
    invalid(
        "version two",
        changed("schema_version: 1", "schema_version: §2"),
        ("schema_version", "must be 1", "schema_version: 1"),
    ),
    invalid(
        "the version as a float",
        changed("schema_version: 1", "schema_version: §1.0"),
        ("schema_version", "whole number, not 1.0", "schema_version: 1"),
    ),
    invalid(
        "the version as a text",
        changed("schema_version: 1", "schema_version: §'1'"),
        ("schema_version", 'not "1"', "schema_version: 1"),
    ),
    invalid(
        "a boolean for an integer",
        changed("64", "§true"),
        ("model.d_model", "a whole number, not true", "d_model: 2048"),
    ),
    invalid(
        "a boolean for a number", model("mlp_ratio: §false"), ("model.mlp_ratio", "a number, not false", "mlp_ratio: 4")
    ),
    invalid(
        "a boolean for repeat",
        schedule("- template: decoder", "  repeat: §true"),
        ("layer_schedule[0].repeat", "not true", "repeat: 1"),
    ),
    invalid("a float for an integer", changed("64", "§64.0"), ("model.d_model", "not 64.0", "Type d_model: 64")),
    invalid(
        "an exponent for an integer", changed("256", "§2.56e2"), ("model.vocab_size", "not 256.0", "vocab_size: 256")
    ),
    invalid("a fraction for an integer", changed("64", "§64.4"), ("model.d_model", "not 64.4", "Type d_model: 64")),
    invalid("a quoted integer", changed("64", '§"64"'), ("model.d_model", 'not "64"', "Type d_model: 64")),
    invalid(
        "thousands with underscores", changed("256", "§32_000"), ("model.vocab_size", "whole", "vocab_size: 32000")
    ),
    invalid("thousands with a comma", changed("256", "§'32,000'"), ("model.vocab_size", "whole", "vocab_size: 32000")),
    invalid("thousands with a letter", changed("256", "§32k"), ("model.vocab_size", "whole", "vocab_size: 32000")),
    invalid("a unit", changed("128", "§128 tokens"), ("model.max_seq_len", "whole", "max_seq_len: 4096")),
    invalid(
        "a list for an integer",
        changed("64", "[64]").replace("  d_model", "  §d_model"),
        ("model.d_model", "not [64]", "Type d_model: 64"),
    ),
    invalid(
        "a mapping for an integer",
        changed("64", "{x: 1}").replace("  d_model", "  §d_model"),
        ("model.d_model", "not {x: 1}", "d_model: 2048"),
    ),
    invalid("a number as the name", changed("tiny", "§7"), ("model.name", "must be text, not 7", 'name: "7"')),
    invalid("a boolean as the name", changed("tiny", "§true"), ("model.name", "text", 'name: "true"')),
    invalid(
        "yes for a boolean",
        changed("  type: hf", "  type: hf\n  add_bos: §yes"),
        ("tokenizer_contract.add_bos", 'not "yes"', "add_bos: true"),
    ),
    invalid(
        "off for a boolean",
        attention("qkv_bias: §off"),
        ("layer_templates.decoder.mixer.attention.qkv_bias", "true or false", "qkv_bias: false"),
    ),
    invalid(
        "one for a boolean",
        attention("o_bias: §1"),
        ("layer_templates.decoder.mixer.attention.o_bias", "true or false, not 1", "o_bias: true"),
    ),
    invalid(
        "a size left empty", changed("  d_model: 64", "  §d_model:"), ("model.d_model", "is empty", "d_model: 2048")
    ),
    invalid(
        "null for a word without null", model("norm_eps: §null"), ("model.norm_eps", "is empty", "norm_eps: 1e-05")
    ),
    invalid(
        "a null block",
        changed("      attention:\n        window: null", "      §attention:"),
        ("layer_templates.decoder.mixer.attention", "is empty", "attention: {}, or delete"),
    ),
    invalid(
        "a null section", changed("head:\n  type: causal_lm", "§head:"), ("head", "is empty", "head: {type: causal_lm}")
    ),
    invalid(
        "a null model",
        changed(BASE[BASE.index("model:") : BASE.index("tokenizer")], "§model:\n"),
        ("model", "is empty", "Write the words of model below it"),
    ),
    invalid(
        "a null schedule",
        changed("layer_schedule:\n  - template: decoder\n    repeat: 2", "§layer_schedule:"),
        ("layer_schedule", "is empty", "dash"),
    ),
    invalid(
        "a null template",
        changed(BASE[BASE.index("  decoder:") : BASE.index("layer_schedule")], "  §decoder:\n"),
        ("layer_templates.decoder", "is empty", "below it"),
    ),
    invalid(
        "a null override",
        schedule("- template: decoder", "  §override:"),
        ("layer_schedule[0].override", "is empty", "override: {}"),
    ),
    invalid(
        "a list instead of a map",
        changed("model:\n  name: tiny\n", "§model:\n  - name: tiny\n")
        .replace("\n  d_", "\n    d_")
        .replace("\n  vocab", "\n    vocab")
        .replace("\n  max", "\n    max")
        .replace("\n  n_heads", "\n    n_heads"),
        ("model", "must be a mapping, not [", "Delete the dashes"),
    ),
    invalid(
        "a map instead of a list",
        changed("  - template: decoder\n    repeat: 2", "  template: decoder").replace(
            "layer_schedule", "§layer_schedule"
        ),
        ("layer_schedule", "must be a list", "Put a dash"),
    ),
    invalid(
        "a word instead of a mixer",
        changed("    mixer:\n      type: attention\n      attention:\n        window: null", "    mixer: §attention"),
        ("layer_templates.decoder.mixer", "a mapping", "mixer: {type: attention}"),
    ),
    invalid(
        "a word instead of a schedule entry",
        schedule("- §decoder"),
        ("layer_schedule[0]", "a mapping", "Type template: decoder"),
    ),
    invalid(
        "an empty schedule",
        changed("layer_schedule:\n  - template: decoder\n    repeat: 2", "§layer_schedule: []"),
        ("layer_schedule", "at least 1 entries", "dash"),
    ),
    invalid(
        "no templates",
        changed(BASE[BASE.index("layer_templates") : BASE.index("layer_schedule")], "§layer_templates: {}\n"),
        ("layer_templates", "at least 1", "Add an entry"),
    ),
    invalid(
        "a template's name with a space",
        changed("layer_schedule:", "  §my layer: {mixer: {type: attention}, ffn: {type: mlp}}\nlayer_schedule:"),
        ('layer_templates."my layer"', "can't be a name", "letters"),
    ),
    invalid("an empty name", changed("tiny", '§""'), ("model.name", "at least 1 characters", "name: my-llm")),
    invalid(
        "a name of a thousand letters", changed("tiny", "§" + "x" * 1000), ("model.name", "longer than 200", "200")
    ),
    invalid("zero width", changed("64", "§0"), ("model.d_model", "at least 1, not 0", "at least 1")),
    invalid("a negative width", changed("64", "§-64"), ("model.d_model", "at least 1, not -64", "at least 1")),
    invalid("a width beyond all machines", changed("64", "§99999999"), ("model.d_model", "at most 1048576", "1048576")),
    invalid("zero epsilon", model("norm_eps: §0"), ("model.norm_eps", "greater than 0, not 0", "greater than 0")),
    invalid(
        "certain dropout",
        appended("training_hints:\n  dropout: §1.0\n"),
        ("training_hints.dropout", "less than 1, not 1.0", "less than 1"),
    ),
    invalid(
        "a negative seed",
        appended("training_hints:\n  seed: §-1\n"),
        ("training_hints.seed", "at least 0", "at least 0"),
    ),
    invalid(
        "repeat zero", schedule("- template: decoder", "  repeat: §0"), ("layer_schedule[0].repeat", "at least 1", "1")
    ),
    invalid(
        "repeat a billion",
        schedule("- template: decoder", "  repeat: §1000000000"),
        ("layer_schedule[0].repeat", "at most 100000, not 1000000000", "at most 100000"),
    ),
    invalid(
        "more layers than the limit together",
        schedule("- {template: decoder, repeat: 60000}", "- §{template: decoder, repeat: 60000}"),
        ("layer_schedule[1]", "120000 layers here; 100000", "100000 layers"),
    ),
    invalid("a near-miss choice", model("dtype: §bfloat"), ("model.dtype", "one of bfloat16", "dtype: bfloat16")),
    invalid("another tool's choice", model("dtype: §fp16"), ("model.dtype", "one of", "dtype: float16")),
    invalid(
        "a choice like nothing",
        changed("swiglu", "§sine"),
        ("layer_templates.decoder.ffn.activation", "one of", "one of"),
    ),
    invalid(
        "a near-miss activation",
        changed("swiglu", "§swigluu"),
        ("layer_templates.decoder.ffn.activation", "one of", "activation: swiglu"),
    ),
    invalid(
        "a norm in no place",
        changed("position: pre", "position: §before"),
        ("layer_templates.decoder.norm.position", "one of pre", "one of"),
    ),
    invalid(
        "a tokenizer of another kind",
        changed("type: hf", "type: §sentencepiece"),
        ("tokenizer_contract.type", "must be hf", "type: hf"),
    ),
    invalid(
        "a scale in words",
        changed("positional: rope", "positional: rope\n  scale: §sqrt_model"),
        ("embedding.scale", "sqrt_d_model", "sqrt_d_model"),
    ),
    invalid(
        "a scale of zero",
        changed("positional: rope", "positional: rope\n  scale: §0"),
        ("embedding.scale", "greater than 0", "greater than 0"),
    ),
    invalid(
        "a scale that is a list",
        changed("positional: rope", "positional: rope\n  §scale: [1]"),
        ("embedding.scale", "a number or text, not [1]", "scale: 1"),
    ),
    invalid(
        "rope switched on",
        attention("rope: §true"),
        ("layer_templates.decoder.mixer.attention.rope", "must be false", "rope: false"),
    ),
    invalid(
        "a scaling without a factor",
        changed("positional: rope", "positional: rope\n  §rope_scaling: {type: linear}"),
        ("embedding.rope_scaling.factor", "is missing", "Add factor"),
    ),
    invalid(
        "a word of another scaling",
        changed("positional: rope", "positional: rope\n  rope_scaling: {type: linear, factor: 2, §beta_fast: 32}"),
        ("embedding.rope_scaling.beta_fast", 'a word of yarn, not of "linear"', "type: yarn"),
    ),
    invalid(
        "an unknown scaling",
        changed("positional: rope", "positional: rope\n  rope_scaling: {type: §yarnn, factor: 2}"),
        ("embedding.rope_scaling.type", "one of linear", "type: yarn"),
    ),
    invalid(
        "a shrinking scaling",
        changed("positional: rope", "positional: rope\n  rope_scaling: {type: linear, factor: §0.5}"),
        ("embedding.rope_scaling.factor", "at least 1, not 0.5", "at least 1"),
    ),
    invalid(
        "a misspelt override",
        schedule("- template: decoder", "  override: {attention: {§windw: 8}}"),
        ("layer_schedule[0].override.attention.windw", "unknown", "Type window"),
    ),
    invalid(
        "an override of the wrong kind",
        schedule("- template: decoder", "  override: {residual: {scaling: §half}}"),
        ("layer_schedule[0].override.residual.scaling", "a number", "Type a number"),
    ),
    invalid(
        "several at once",
        changed("  n_heads: 4\n", "  n_heads: §4.0\n  §zzz: 1\n").replace("window: null", "window: §0"),
        ("model.n_heads", "whole", "n_heads: 4"),
        ("model.zzz", "unknown", "Delete"),
        ("layer_templates.decoder.mixer.attention.window", "at least", "at least"),
    ),
]
