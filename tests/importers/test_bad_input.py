"""Whatever is wrong with a source, the answer is three located lines and no output."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from eulerstack.compiler.importing import export_checkpoint, import_checkpoint
from eulerstack.errors import CompatibilityError, CompileError, EulerStackError
from tests.importers.cases import BY_NAME

WEIGHTS = "model.safetensors"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A sound Llama checkpoint that a test then spoils."""
    directory = tmp_path / "source"
    BY_NAME["llama_mqa"].build().save_pretrained(directory)
    return directory


def _refused(source: Path, category: type[EulerStackError], *texts: str, spec_only: bool = False) -> EulerStackError:
    """Imports, holds that it is refused with all of `texts`, in three lines a problem, leaving nothing behind."""
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(category) as caught:
        import_checkpoint(source, source.parent / "out", spec_only=spec_only)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 * len(caught.value.diagnostics)
    assert all(line.startswith(f"{category.category}: ") for line in lines[::3])
    assert all(line.startswith("Fix: ") for line in lines[1::3])
    assert all(line.startswith("See: reference/import.md#") for line in lines[2::3])
    for text in texts:
        assert text in str(caught.value)
    assert sorted(source.parent.rglob("*")) == before
    return caught.value


def _set(source: Path, **words: Any) -> None:
    file = source / "config.json"
    config = {**json.loads(file.read_text(encoding="utf-8")), **words}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}, indent=2))


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    from eulerstack.i18n import activate

    activate("en")


def test_a_missing_directory(tmp_path: Path) -> None:
    _refused(tmp_path / "nowhere" / "model", CompileError, "is not a directory")


def test_a_file_instead_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("{}")
    _refused(tmp_path / "model", CompileError, "is not a directory")


def test_no_config(source: Path) -> None:
    (source / "config.json").unlink()
    _refused(source, CompileError, "has no config.json")


def test_config_is_a_directory(source: Path) -> None:
    (source / "config.json").unlink()
    (source / "config.json").mkdir()
    _refused(source, CompileError, "has no config.json")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b'{\n  "model_type": "llama",\n  oops\n}', "config.json:3:3"),
        (b"", "config.json:1:1"),
        (b"[1, 2]", "config.json:1:1"),
        (b'{"rms_norm_eps": NaN}', "config.json:1:1"),
        (b"\xff\xfe\x00", "config.json:1:1"),
        (b'{"a": ' * 100_000, "config.json:1:1"),
    ],
)
def test_broken_json_is_located(source: Path, text: bytes, place: str) -> None:
    (source / "config.json").write_bytes(text)
    _refused(source, CompileError, place)


def test_a_missing_model_type_lists_the_families(source: Path) -> None:
    _set(source, model_type=...)
    families = [
        *(
            "bamba",
            "deepseek_v3",
            "deepseek_v4",
            "falcon_mamba",
            "gemma2",
            "gpt2",
            "jamba",
            "llama",
            "mamba",
            "mamba2",
            "mistral",
        ),
        *("mixtral", "nemotron_h", "olmo2", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    ]
    _refused(source, CompatibilityError, ", ".join(families))


def test_an_unknown_model_type_is_located_and_answered(source: Path) -> None:
    _set(source, model_type="qwen2_vl")
    error = _refused(source, CompatibilityError, "qwen2_vl", "known: bamba, deepseek_v3", "did you mean qwen2?")
    text = (source / "config.json").read_text(encoding="utf-8").splitlines()
    location = error.diagnostics[0].location
    assert location is not None
    assert text[location.line - 1][location.column - 1 :].startswith('"model_type"')


def test_an_eulerstack_directory_is_not_imported_again(source: Path) -> None:
    _set(source, model_type="eulerstack")
    _refused(source, CompileError, "EulerStack model already")


@pytest.mark.parametrize(
    ("words", "path", "text"),
    [
        ({"hidden_size": "72"}, "hidden_size", 'is "72"'),
        ({"hidden_size": 72.0}, "hidden_size", "72.0"),
        ({"hidden_size": True}, "hidden_size", "is true"),
        ({"hidden_size": None}, "hidden_size", "is null"),
        ({"num_hidden_layers": 0}, "num_hidden_layers", "is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers", "1000000000"),
        ({"vocab_size": [97]}, "vocab_size", "[97]"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps", "-1.0"),
        ({"attention_bias": "yes"}, "attention_bias", '"yes"'),
        ({"attention_dropout": 1.0}, "attention_dropout", "1.0"),
        ({"num_key_value_heads": 2}, "num_attention_heads", "multiple of num_key_value_heads"),
        ({"hidden_act": "quick_gelu"}, "hidden_act", "quick_gelu"),
        ({"hidden_act": None}, "hidden_act", "null"),
        ({"dtype": "float64"}, "dtype", "float64"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config", "quantised"),
        ({"sliding_window": 4096}, "sliding_window", "4096"),
        ({"rope_parameters": "yarn"}, "rope_parameters", '"yarn"'),
        ({"rope_parameters": {"rope_type": "mrope"}}, "rope_parameters.rope_type", "mrope"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, "rope_parameters.rope_type", "yarn"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope_parameters.factor", "null"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters.low_freq_factor", "null"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_parameters.short_factor", "null"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "rope_parameters", "by layer type"),
        ({"rope_parameters": {"rope_theta": -5.0}}, "rope_theta", "-5.0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor", "0.5"),
        ({"rope_scaling": {"type": "yarn", "factor": "4"}}, "rope_scaling.factor", '"4"'),
    ],
)
def test_a_wrong_value_is_named(source: Path, words: dict[str, Any], path: str, text: str) -> None:
    _set(source, **words)
    for spec_only in (False, True):
        error = _refused(source, CompatibilityError, text, spec_only=spec_only)
        assert path in [problem.path for problem in error.diagnostics]
        assert all(problem.location is not None for problem in error.diagnostics)


@pytest.mark.parametrize(
    ("name", "words", "path"),
    [
        ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"embd_pdrop": 0.3}, "embd_pdrop"),
        ("gpt2", {"n_embd": 73}, "n_embd"),
        ("gpt2", {"activation_function": "quick_gelu"}, "activation_function"),
        ("gemma2_caps", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma2_caps", {"sliding_window": None}, "sliding_window"),
        ("gemma2_caps", {"head_dim": None}, "head_dim"),
        ("gemma2_caps", {"layer_types": ["full_attention"]}, "layer_types"),
        ("gemma2_caps", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("mistral_window", {"layer_types": ["full_attention"] * 3}, "layer_types"),
        ("mistral_window", {"sliding_window": 0}, "sliding_window"),
        ("qwen2_windows", {"layer_types": ["chunked_attention"] * 3}, "layer_types[0]"),
        ("qwen2_windows", {"max_window_layers": -1}, "max_window_layers"),
        ("qwen3_windows", {"use_sliding_window": False}, "sliding_window"),
        ("olmo2", {"sliding_window": 8}, "sliding_window"),
        ("deepseek_v3_experts", {"output_router_logits": True}, "output_router_logits"),
        ("deepseek_v3_experts", {"topk_group": None}, "topk_group"),
        ("deepseek_v3_experts", {"n_routed_experts": 0}, "n_routed_experts"),
        ("deepseek_v3_experts", {"routed_scaling_factor": "2"}, "routed_scaling_factor"),
        ("deepseek_v4", {"layer_types": None, "compress_ratios": [4, 128, 7]}, "layer_types[2]"),
        ("deepseek_v4", {"layer_types": ["full_attention"] * 3}, "layer_types[0]"),
        ("deepseek_v4", {"layer_types": ["compressed_sparse_attention"]}, "layer_types"),
        ("deepseek_v4", {"mlp_layer_types": ["dense"] * 3}, "mlp_layer_types[0]"),
        (
            "deepseek_v4",
            {"compress_rates": {"compressed_sparse_attention": 0}},
            "compress_rates.compressed_sparse_attention",
        ),
        ("deepseek_v4", {"compress_rates": 4}, "compress_rates"),
        ("deepseek_v4", {"num_key_value_heads": 2}, "num_key_value_heads"),
        ("deepseek_v4", {"scoring_func": "softmax"}, "scoring_func"),
        ("deepseek_v4", {"swiglu_limit": 0}, "swiglu_limit"),
        ("deepseek_v4", {"rope_parameters": {"rope_type": "ntk"}}, "rope_parameters.rope_type"),
        ("deepseek_v4", {"partial_rotary_factor": 2}, "partial_rotary_factor"),
        ("bamba", {"z_loss_coefficient": 0.1}, "z_loss_coefficient"),
        ("bamba", {"time_step_limit": [0.1, 2.0]}, "time_step_limit"),
        ("bamba", {"attn_layer_indices": "1"}, "attn_layer_indices"),
        ("bamba", {"mamba_n_heads": 7}, "mamba_n_heads"),
        ("bamba", {"rope_parameters": {"partial_rotary_factor": 1.0}}, "rope_parameters.partial_rotary_factor"),
        ("jamba_experts", {"expert_layer_offset": 2}, "expert_layer_offset"),
        ("jamba_experts", {"num_experts_per_tok": "2"}, "num_experts_per_tok"),
        ("nemotron_h", {"moe_latent_size": 32}, "moe_latent_size"),
        ("nemotron_h", {"mlp_bias": True}, "mlp_bias"),
        ("nemotron_h", {"tie_word_embeddings": True}, "tie_word_embeddings"),
        ("nemotron_h", {"layers_block_type": ["moe", "mamba"]}, "layers_block_type[0]"),
        ("nemotron_h", {"layers_block_type": ["mamba", "moe", "mlp"]}, "layers_block_type[2]"),
        ("nemotron_h", {"layers_block_type": ["mamba", "retnet"]}, "layers_block_type[1]"),
        ("nemotron_h", {"layers_block_type": []}, "layers_block_type"),
        ("nemotron_h", {"layers_block_type": None, "hybrid_override_pattern": "M-X"}, "hybrid_override_pattern[2]"),
        ("nemotron_h", {"mamba_hidden_act": "gelu"}, "mamba_hidden_act"),
        ("mixtral", {"router_jitter_noise": 0.1}, "router_jitter_noise"),
        ("mixtral", {"num_local_experts": "5"}, "num_local_experts"),
        ("mixtral", {"num_experts_per_tok": None}, "num_experts_per_tok"),
        ("qwen2_moe", {"mlp_only_layers": 1}, "mlp_only_layers"),
        ("qwen2_moe", {"mlp_only_layers": [0.5]}, "mlp_only_layers"),
        ("qwen2_moe", {"shared_expert_intermediate_size": None}, "shared_expert_intermediate_size"),
        ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
        ("qwen3_moe", {"moe_intermediate_size": -1}, "moe_intermediate_size"),
        ("deepseek_v3_plain", {"first_k_dense_replace": None}, "first_k_dense_replace"),
        ("deepseek_v3_plain", {"num_key_value_heads": 1}, "num_key_value_heads"),
        ("deepseek_v3_plain", {"kv_lora_rank": None}, "kv_lora_rank"),
        ("deepseek_v3_plain", {"qk_rope_head_dim": "8"}, "qk_rope_head_dim"),
    ],
)
def test_a_feature_without_words_is_refused(name: str, words: dict[str, Any], path: str, tmp_path: Path) -> None:
    BY_NAME[name].config().save_pretrained(tmp_path / "source")
    _set(tmp_path / "source", **words)
    error = _refused(tmp_path / "source", CompatibilityError, spec_only=True)
    assert [problem.path for problem in error.diagnostics][0] == path


def test_every_problem_of_a_config_is_reported_at_once(source: Path) -> None:
    _set(source, hidden_size="72", vocab_size=None, hidden_act="mish")
    assert len(_refused(source, CompatibilityError).diagnostics) == 3


def test_what_the_language_refuses_is_reported_of_config_json(source: Path) -> None:
    _set(source, rope_parameters={"rope_type": "linear", "factor": 0.5})
    _language_refuses(source, "embedding.rope_scaling.factor")
    _set(source, rope_parameters=None, head_dim=15)
    _language_refuses(source, "")


def _language_refuses(source: Path, path: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        import_checkpoint(source, source.parent / "out")
    problem = caught.value.diagnostics[0]
    assert path in problem.path
    assert "config.json:1:1" in problem.lines()[0]
    assert "the spec made from config.json is refused" in problem.lines()[0]


def _resave(source: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(source / WEIGHTS)
    change(tensors)
    save_file(tensors, source / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (lambda t: t.pop("model.norm.weight"), ("lacks 1 tensors", "model.norm.weight")),
        (lambda t: t.update(bonus=torch.ones(2)), ("has 1 tensors that LlamaForCausalLM", "bonus")),
        (
            lambda t: t.update({"model.layers.1.mlp.up_proj.bias": torch.ones(100)}),
            ("has 1 tensors", "model.layers.1.mlp.up_proj.bias"),
        ),
        (
            lambda t: t.update({"model.layers.9.mlp.up_proj.weight": torch.ones(100, 72)}),
            ("has 1 tensors", "model.layers.9.mlp.up_proj.weight"),
        ),
        (
            lambda t: t.update({"lm_head.weight": torch.ones(97, 71)}),
            ("lm_head.weight has the shape [97, 71], but config.json asks for [97, 72]",),
        ),
        (
            lambda t: t.update({"lm_head.weight": torch.ones(97, 72, dtype=torch.int64)}),
            ("lm_head.weight holds I64 numbers",),
        ),
        (
            lambda t: t.update({"lm_head.weight": torch.ones(97, 72, dtype=torch.float64)}),
            ("lm_head.weight holds F64 numbers",),
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    source: Path, change: Callable[[dict[str, torch.Tensor]], object], texts: tuple[str, ...]
) -> None:
    _resave(source, change)
    _refused(source, CompileError, *texts)


EXPERT = "model.layers.1.mlp.experts.2.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (lambda t: t.pop(EXPERT), ("lacks 1 tensors", EXPERT)),
        (lambda t: t.update({EXPERT: torch.ones(21, 72)}), (f"{EXPERT} has the shape [21, 72]", "[20, 72]")),
        (lambda t: t.update({EXPERT: t[EXPERT].bfloat16()}), (f"{EXPERT} holds BF16 numbers",)),
        (
            lambda t: t.update({EXPERT.replace(".2.", ".6."): torch.ones(20, 72)}),
            ("has 1 tensors that Qwen3MoeForCausalLM", "experts.6.up_proj"),
        ),
        (
            lambda t: t.update({"model.layers.1.mlp.experts.gate_up_proj": torch.ones(6, 43, 72)}),
            ("gate_up_proj has the shape [6, 43, 72], but config.json asks for [6, 40, 72]", "has 12 tensors"),
        ),
    ],
)
def test_experts_that_do_not_fit_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], texts: tuple[str, ...], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    BY_NAME["qwen3_moe"].build().save_pretrained(source)
    _resave(source, change)
    _refused(source, CompileError, *texts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_a_table_of_experts_must_hold_whole_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    source, name = tmp_path / "source", "model.layers.0.ffn.gate.tid2eid"
    BY_NAME["deepseek_v4"].build().save_pretrained(source)
    _resave(source, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    _refused(source, CompileError, f"{name} holds {'F32' if dtype.is_floating_point else 'I32'} numbers")


def test_layers_that_predict_further_tokens_are_refused_by_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    BY_NAME["deepseek_v3_plain"].build().save_pretrained(source)
    extra = {"eh_proj": torch.ones(72, 144), "input_layernorm": torch.ones(72)}
    _resave(source, lambda tensors: tensors.update({f"model.layers.3.{name}.weight": extra[name] for name in extra}))
    error = _refused(source, CompileError, "predict further tokens (MTP)", "with transformers")
    assert len(error.diagnostics) == 1


def test_a_tied_head_that_differs_is_refused(source: Path) -> None:
    _set(source, tie_word_embeddings=True)
    _refused(source, CompileError, "has a head of its own", "tie_word_embeddings to false")


def test_a_fused_tensor_of_the_wrong_width_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    BY_NAME["gpt2"].build().save_pretrained(source)
    name = "transformer.h.1.attn.c_attn.weight"
    _resave(source, lambda tensors: tensors.update({name: torch.ones(72, 215)}))
    _refused(source, CompileError, f"{name} has the shape [72, 215], but config.json asks for [72, 216]")


@pytest.mark.parametrize("keep", [0, 5, 8, 200, -1, -40_000])
def test_a_truncated_file_is_called_damaged(source: Path, keep: int) -> None:
    data = (source / WEIGHTS).read_bytes()
    (source / WEIGHTS).write_bytes(data[:keep])
    _refused(source, CompileError, "is damaged", WEIGHTS)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1]}}',
    ],
)
def test_a_forged_header_is_called_damaged(source: Path, header: bytes) -> None:
    (source / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    _refused(source, CompileError, "is damaged")


def test_no_weights_point_to_spec_only(source: Path) -> None:
    (source / WEIGHTS).unlink()
    _refused(source, CompileError, "has no model.safetensors", "--spec-only")
    assert import_checkpoint(source, source.parent / "out", spec_only=True).name == "spec.yml"


def test_pickles_are_not_opened(source: Path) -> None:
    (source / WEIGHTS).unlink()
    (source / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    _refused(source, CompileError, "pytorch_model.bin", "can run code")


@pytest.mark.parametrize(
    ("index", "text"),
    [
        ("{", "is not JSON"),
        ("{}", "has no `weight_map`"),
        ('{"weight_map": {"a": 1}}', "has no `weight_map`"),
        ('{"weight_map": {"a": "model-1.safetensors"}}', "which is not there"),
        ('{"weight_map": {"a": "../source/shard.safetensors"}}', "outside of the directory"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "outside of the directory"),
        ('{"weight_map": {"a": "shard.safetensors"}}', "which lacks it"),
    ],
)
def test_a_broken_index_is_refused(source: Path, index: str, text: str) -> None:
    (source / WEIGHTS).rename(source / "shard.safetensors")
    (source / "model.safetensors.index.json").write_text(index)
    _refused(source, CompileError, text)


def test_an_output_that_is_not_empty_is_kept(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "full"
    out.mkdir()
    (out / "precious").write_text("mine")
    for work in (import_checkpoint, _export_after_import):
        with pytest.raises(CompileError, match="not empty"):
            work(source, out)
        assert [entry.name for entry in out.iterdir()] == ["precious"]
    import_checkpoint(source, out, force=True)
    assert not (out / "precious").exists()
    assert (out / "modeling_eulerstack.py").exists()


def _export_after_import(source: Path, out: Path) -> None:
    imported = source.parent / "imported"
    import_checkpoint(source, imported)
    export_checkpoint(imported, out)


def test_an_existing_spec_is_kept_without_force(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "spec.yml"
    file.write_text("mine")
    with pytest.raises(CompileError, match="exists already"):
        import_checkpoint(source, file, spec_only=True)
    assert file.read_text() == "mine"
    import_checkpoint(source, file, spec_only=True, force=True)
    assert file.read_text().startswith("# Imported")


def test_a_spec_that_cannot_be_written_is_reported(source: Path) -> None:
    with pytest.raises(CompileError, match="can't be written"):
        import_checkpoint(source, source / "config.json" / "spec.yml", spec_only=True)


def test_exporting_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="is not that of an EulerStack model"):
        export_checkpoint(source, tmp_path / "out")


def test_an_unknown_family_to_export_to_is_refused(source: Path, tmp_path: Path) -> None:
    import_checkpoint(source, tmp_path / "imported")
    with pytest.raises(CompatibilityError, match="did you mean llama"):
        export_checkpoint(tmp_path / "imported", tmp_path / "out", family="lama")


def test_a_family_that_lacks_words_says_which(source: Path, tmp_path: Path) -> None:
    import_checkpoint(source, tmp_path / "imported")
    with pytest.raises(CompatibilityError) as caught:
        export_checkpoint(tmp_path / "imported", tmp_path / "out", family="qwen2")
    assert "layers[0].mixer.qkv_bias" in [problem.path for problem in caught.value.diagnostics]
