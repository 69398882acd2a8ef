"""The shipped presets: sizes, form, no warnings, and the counts the built models have."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

import eulerstack as es
import eulerstack_presets
from eulerstack.compiler.cost import model_cost
from eulerstack.compiler.family import config_for
from eulerstack.compiler.initial import build_on_meta
from eulerstack.dsl.paths import is_reserved
from eulerstack.ir.types import ModelIR
from eulerstack.plugins.manager import get_registry
from eulerstack.preset_headers import read_header
from eulerstack.schema import report

FOLDER = Path(eulerstack_presets.__file__).parent
PATHS = {path.stem: path for path in sorted(FOLDER.glob("*.yml"))}

PROMISED_PARAMS = {
    "arch_beginner_gpt2": 1.1e9,
    "arch_beginner_llama": 1.1e9,
    "arch_intermediate_mistral": 1.3e9,
    "arch_intermediate_gemma2": 1.3e9,
    "arch_intermediate_qwen_longctx": 1.3e9,
    "arch_advanced_jamba": 1.2e9,
    "arch_advanced_mla": 1.1e9,
    "arch_advanced_mod": 1.1e9,
    "arch_advanced_retnet": 1.3e9,
    "arch_advanced_samba": 1e9,
    "arch_expert_blackmamba_moe": 1.5e9,
    "arch_expert_blackmamba_moe_mini": 1.56e8,
    "arch_expert_deepseek_moe": 2e9,
    "arch_expert_deepseek_moe_mini": 3.57e8,
    "arch_expert_dilated_longnet": 2e9,
    "arch_expert_dilated_longnet_mini": 8.3e7,
    "arch_expert_dsv4_flash_mini": 1.8e8,
    "arch_expert_dual_stream": 1.4e9,
    "arch_expert_dsv4_subset_mini": 1.8e8,
    "arch_expert_dsv4_v3fallback": 2e9,
    "arch_expert_frontier_full_moe": 2e9,
    "arch_expert_frontier_full_moe_mini": 1.06e8,
    "arch_expert_kitchen_sink": 1.7e8,
    "arch_expert_mhc_moe_mini": 1.5e8,
    "arch_expert_mixtral_moe": 1.9e9,
    "arch_expert_mixtral_moe_mini": 1.75e8,
    "arch_expert_progressive_stack": 1.5e9,
    "arch_expert_progressive_stack_mini": 8.6e7,
    "arch_expert_retnet_moe": 1.5e9,
    "arch_expert_reasoning_r1": 1.3e9,
    "arch_expert_research": 1.5e9,
    "arch_expert_striped_hyena": 1e9,
    "arch_expert_titans_memory": 1.2e9,
    **{
        f"llm_{size}_{variant}": params
        for size, params in {"0p1b": 1e8, "0p8b": 8e8, "2b": 2e9, "4b": 4e9, "16b": 16e9}.items()
        for variant in ("simple", "mistral", "jamba", "mla")
    },
    **{f"llm_{size}_moe": params for size, params in {"0p8b": 8e8, "2b": 2e9, "4b": 4e9, "16b": 16e9}.items()},
}
SECTIONS = (
    "schema_version",
    "let",
    "model",
    "tokenizer_contract",
    "embedding",
    "layer_templates",
    "layer_schedule",
    "head",
    "training_hints",
    "execution_modes",
    "transition",
    "tissue",
)

MODEL = ("name", "d_model", "vocab_size", "max_seq_len", "n_heads", "n_kv_heads", "head_dim", "d_ff", "mlp_ratio")
MODEL += ("norm_eps", "dtype", "family_hint", "target_params")
TEMPLATE = ("mixer", "ffn", "norm", "residual", "memory", "shape_change", "state")
TIERS = {1: "validated industrial", 2: "recent hybrid / moe / long context", 3: "experimental primitives"}
EXPERIMENTAL = {"arch_expert_reasoning_r1", "arch_expert_titans_memory", "arch_expert_dual_stream"}
# The series has experts in one layer of four at every size; the others say what a token passes by in other words.
SAID_OTHERWISE = {f"llm_{size}_moe" for size in ("0p8b", "2b", "4b", "16b")}
SAID_OTHERWISE |= {"arch_advanced_mod", "arch_expert_kitchen_sink"}

every_preset = pytest.mark.parametrize("name", sorted(PATHS))


def ir_of(name: str) -> ModelIR:
    return es.normalize_to_ir(es.load(name))


def header_of(name: str) -> list[str]:
    lines = PATHS[name].read_text(encoding="utf-8").splitlines()
    return lines[: next(index for index, line in enumerate(lines) if not line.startswith("#"))]


def windows_of(name: str) -> list[int | None]:
    return [layer.mixer.params["window"] for layer in ir_of(name).layers]


def test_every_promised_preset_is_there() -> None:
    assert set(PATHS) == set(PROMISED_PARAMS)


def test_presets_are_found_through_the_hook() -> None:
    assert str(FOLDER) in {folder.path for folder in get_registry().presets()}


@every_preset
def test_size_is_within_ten_percent_of_the_promise(name: str) -> None:
    assert es.count_parameters(ir_of(name)) == pytest.approx(PROMISED_PARAMS[name], rel=0.1)


@every_preset
def test_target_params_is_the_promise(name: str) -> None:
    assert ir_of(name).model["target_params"] == PROMISED_PARAMS[name]


@pytest.mark.torch
@every_preset
def test_declared_parameters_are_the_built_ones(name: str) -> None:
    model = build_on_meta(ir_of(name))
    model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) == es.count_parameters(ir_of(name))


@every_preset
def test_report_has_no_warnings(name: str) -> None:
    findings = report(ir_of(name), get_registry(), es.load(name))
    # That nobody reads them is what these words show.
    shown = {"reserved_namespace"} if name == "arch_expert_kitchen_sink" else set()
    assert [finding.what.render(str) for finding in findings if finding.rule not in shown] == []


@every_preset
def test_header_says_what_it_teaches_where_it_is_from_and_how_hard_it_is(name: str) -> None:
    lines, header = header_of(name), read_header(PATHS[name])
    assert 3 <= len(lines) <= 8 and re.match(r"[^:]+: .+\.$", header.summary)
    assert header.teaches.endswith(".") and header.source.endswith(".") and header.years
    assert lines[-1] == f"# Tier {header.tier} ({TIERS[header.tier]}), level: {header.level}."


@every_preset
def test_tier_and_level_are_those_of_the_learning_path(name: str) -> None:
    header = read_header(PATHS[name])
    family, level = name.split("_")[0], name.split("_")[1]
    assert header.level == (level if family == "arch" else "llm")
    validated = level in ("beginner", "intermediate") or (family == "llm" and name.endswith(("_simple", "_mistral")))
    assert header.tier == (1 if validated else 3 if name in EXPERIMENTAL else 2)


def test_levels_have_as_many_presets_as_promised() -> None:
    count = Counter(read_header(path).level for path in PATHS.values())
    assert count == {"beginner": 2, "intermediate": 3, "advanced": 5, "expert": 23, "llm": 24}
    assert sum(name.endswith("_mini") for name in PATHS) == 9


@every_preset
def test_what_a_header_says_of_parameters_is_so(name: str) -> None:
    said = read_header(PATHS[name]).touched
    cost = model_cost(ir_of(name))
    # Every preset of experts but the series says it; the others have no part that a token passes by.
    assert bool(said) or cost.active > 0.99 * cost.total or name in SAID_OTHERWISE
    for text, exact in zip(said or (), (cost.total, cost.active), strict=False):
        decimals = len(text[:-1].partition(".")[2])
        assert f"{exact / {'M': 1e6, 'B': 1e9}[text[-1]]:.{decimals}f}" == text[:-1]
    assert "a token touches" not in read_header(PATHS[name]).lesson or name in SAID_OTHERWISE


@every_preset
def test_sections_come_in_one_order(name: str) -> None:
    spec = yaml.safe_load(PATHS[name].read_text(encoding="utf-8"))
    reserved = [key for key in spec if is_reserved(key)]
    assert list(spec) == [*(section for section in SECTIONS if section in spec), *reserved]


@every_preset
def test_words_come_in_one_order(name: str) -> None:
    spec = yaml.safe_load(PATHS[name].read_text(encoding="utf-8"))
    for mapping, order in [(spec["model"], MODEL), *((each, TEMPLATE) for each in spec["layer_templates"].values())]:
        assert list(mapping) == [word for word in order if word in mapping]
        assert set(mapping) <= set(order)


@every_preset
def test_lines_fit_and_indent_by_two(name: str) -> None:
    text = PATHS[name].read_text(encoding="utf-8")
    assert text.endswith("\n") and not text.endswith("\n\n")
    for line in text.splitlines():
        assert len(line) <= 120 and line == line.rstrip() and "\t" not in line
        assert (len(line) - len(line.lstrip(" "))) % 2 == 0


@every_preset
def test_file_and_model_bear_the_same_name(name: str) -> None:
    assert ir_of(name).model["name"] == name.replace("_", "-")


@every_preset
def test_head_dim_lies_between_64_and_128(name: str) -> None:
    ir = ir_of(name)
    # Retention has 256 in every size of its paper: the heads' states are all that it remembers.
    highest = 256 if {layer.mixer.type for layer in ir.layers} == {"retnet"} else 128
    assert 64 <= ir.model["head_dim"] <= highest


@pytest.mark.parametrize("name", sorted(name for name in PATHS if name.endswith("_mistral")))
def test_mistral_presets_repeat_one_global_and_three_sliding_layers(name: str) -> None:
    windows = windows_of(name)
    assert len(windows) % 4 == 0
    assert windows[::4] == [None] * (len(windows) // 4)
    assert all(window is not None for index, window in enumerate(windows) if index % 4)


@pytest.mark.parametrize("size", ["0p1b", "0p8b", "2b", "4b", "16b"])
def test_mistral_variant_differs_from_simple_in_the_window_alone(size: str) -> None:
    simple, mistral = ir_of(f"llm_{size}_simple"), ir_of(f"llm_{size}_mistral")
    assert es.count_parameters(simple) == es.count_parameters(mistral)
    for layer, other in zip(simple.layers, mistral.layers, strict=True):
        assert {**layer.mixer.params, "window": None, "window_mode": None} == {
            **other.mixer.params,
            "window": None,
            "window_mode": None,
        }
        assert (layer.ffn, layer.norm, layer.residual) == (other.ffn, other.norm, other.residual)


@pytest.mark.parametrize("size", ["0p1b", "0p8b", "2b", "4b", "16b"])
def test_mla_variant_differs_from_simple_in_attention_alone_and_caches_less(size: str) -> None:
    simple, mla = ir_of(f"llm_{size}_simple"), ir_of(f"llm_{size}_mla")
    for word in ("d_model", "n_heads", "d_ff", "max_seq_len", "dtype"):
        assert simple.model[word] == mla.model[word]
    assert len(simple.layers) == len(mla.layers)
    assert all(layer.mixer.params["latent_dim"] == 4 * mla.model["head_dim"] for layer in mla.layers)
    assert model_cost(mla).cache_bytes(1000) < 0.6 * model_cost(simple).cache_bytes(1000)


@pytest.mark.parametrize("name", sorted(name for name in PATHS if name.endswith("_mla")))
def test_mla_presets_are_what_transformers_deepseek_v3_computes(name: str) -> None:
    importers = [each for each in get_registry().importers() if each.model_type == "deepseek_v3"]
    importer, config = config_for(ir_of(name), importers, PATHS[name])
    assert importer.model_type == "deepseek_v3" and config["kv_lora_rank"] == 4 * config["qk_nope_head_dim"]


@pytest.mark.parametrize("name", sorted(name for name in PATHS if name.endswith("_jamba")))
def test_jamba_presets_have_three_mamba_layers_to_one_of_attention(name: str) -> None:
    mixers = [layer.mixer.type for layer in ir_of(name).layers]
    assert mixers == ["mamba", "mamba", "attention", "mamba"] * (len(mixers) // 4)
    importers = [each for each in get_registry().importers() if each.model_type == "jamba"]
    _, config = config_for(ir_of(name), importers, PATHS[name])
    assert (config["attn_layer_period"], config["attn_layer_offset"]) == (4, 2)


@pytest.mark.parametrize("size", ["0p8b", "2b", "4b", "16b"])
def test_moe_presets_have_eight_experts_in_one_layer_of_four(size: str) -> None:
    ir = ir_of(f"llm_{size}_moe")
    ffns = [layer.ffn for layer in ir.layers]
    assert [ffn.type for ffn in ffns] == ["gated_mlp", "gated_mlp", "gated_mlp", "moe"] * (len(ffns) // 4)
    assert {(ffn.params["experts"], ffn.params["top_k"]) for ffn in ffns if ffn.type == "moe"} == {(8, 2)}
    assert model_cost(ir).active < 0.6 * model_cost(ir).total


def test_samba_alternates_and_caches_no_more_than_its_window() -> None:
    ir = ir_of("arch_advanced_samba")
    assert [layer.mixer.type for layer in ir.layers] == ["mamba", "attention"] * (len(ir.layers) // 2)
    cost = model_cost(ir)
    assert cost.cache_bytes(2047) == cost.cache_bytes(16384) > cost.cache_bytes(1000)


def test_gemma2_alternates_local_and_global() -> None:
    windows = windows_of("arch_intermediate_gemma2")
    assert windows == [4096, None] * (len(windows) // 2)


def test_qwen_longctx_stretches_rope_four_times_to_32k() -> None:
    ir = ir_of("arch_intermediate_qwen_longctx")
    scaling = ir.position.params["rope_scaling"]
    assert ir.model["max_seq_len"] == 32768 == scaling["factor"] * scaling["original_max_seq_len"]


def test_gpt2_norms_come_after_the_sum_and_none_before_the_head() -> None:
    ir = ir_of("arch_beginner_gpt2")
    assert {(layer.norm.type, layer.norm.position) for layer in ir.layers} == {("layernorm", "post")}
    assert ir.final_norm is None


def test_striped_hyena_has_four_convolutions_to_each_attention_at_128k() -> None:
    ir = ir_of("arch_expert_striped_hyena")
    assert [layer.mixer.type for layer in ir.layers] == (["hyena"] * 4 + ["attention"]) * 4
    assert ir.model["max_seq_len"] == 128 * 1024


@pytest.mark.parametrize(
    ("name", "family"), [("arch_expert_mixtral_moe", "mixtral"), ("arch_expert_deepseek_moe", "deepseek_v3")]
)
def test_published_mixtures_are_what_their_classes_compute(name: str, family: str) -> None:
    importers = [each for each in get_registry().importers() if each.model_type == family]
    importer, _ = config_for(ir_of(name), importers, PATHS[name])
    assert importer.model_type == family


# What the seeds promise of the small ones: parameters that a token touches.
TOUCHED = {
    "arch_expert_blackmamba_moe_mini": 9e7,
    "arch_expert_deepseek_moe_mini": 6e7,
    "arch_expert_dilated_longnet_mini": 7.5e7,
    "arch_expert_dsv4_flash_mini": 7e7,
    "arch_expert_dsv4_subset_mini": 7e7,
    "arch_expert_frontier_full_moe_mini": 6e7,
    "arch_expert_mhc_moe_mini": 7e7,
    "arch_expert_mixtral_moe_mini": 9e7,
    "arch_expert_progressive_stack_mini": 8.6e7,
}


@pytest.mark.parametrize("name", sorted(TOUCHED))
def test_a_token_touches_about_what_was_promised(name: str) -> None:
    assert model_cost(ir_of(name)).active == pytest.approx(TOUCHED[name], rel=0.1)
