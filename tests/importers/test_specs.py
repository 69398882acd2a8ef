"""config.json of each family becomes a spec: valid, minimal, readable, and of exactly the class's parameters."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention

from eulerstack.compiler.cost import count_parameters
from eulerstack.compiler.importing import import_checkpoint
from eulerstack.dsl.source import load_source
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.plugins.manager import get_registry
from eulerstack_mixers.importers import (
    bamba,
    deepseek_v3,
    deepseek_v4,
    gemma2,
    gpt2,
    jamba,
    llama,
    mistral,
    mixtral,
    nemotron_h,
    olmo2,
    qwen2,
    qwen3,
    qwen_moe,
    state_space,
)
from tests.importers.cases import CASES, ONE_A_FAMILY, Case

MODULES = {"llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3, "gemma2": gemma2, "gpt2": gpt2}
MODULES |= {"olmo2": olmo2, "jamba": jamba, "deepseek_v3": deepseek_v3, "mixtral": mixtral}
MODULES |= {"bamba": bamba, "nemotron_h": nemotron_h, "deepseek_v4": deepseek_v4}
DEFAULTS = {model_type: module.DEFAULTS for model_type, module in MODULES.items()}
DEFAULTS |= {
    "mamba": state_space.MAMBA_DEFAULTS,
    "falcon_mamba": state_space.FALCON_DEFAULTS,
    "mamba2": state_space.MAMBA2_DEFAULTS,
    "qwen2_moe": qwen_moe.QWEN2_DEFAULTS,
    "qwen3_moe": qwen_moe.QWEN3_DEFAULTS,
}

GOLDEN = """\
# Imported from a HuggingFace checkpoint of model_type gemma2 (Gemma2ForCausalLM).
schema_version: 1

model:
  name: tiny-gemma
  d_model: 72
  vocab_size: 97
  max_seq_len: 64
  n_heads: 3
  n_kv_heads: 1
  head_dim: 16
  d_ff: 100
  norm_eps: 1.0e-06
  dtype: float32
  family_hint: gemma2

tokenizer_contract: { type: hf }

embedding: { type: learned, positional: rope, rope_theta: 10000.0, scale: sqrt_d_model }

layer_templates:
  sliding:
    mixer: { type: attention, attention: { softcap: 0.25, scale: 0.5, window: 5 } }
    ffn: { type: gated_mlp, activation: gelu_tanh }
    norm: { type: rmsnorm, position: sandwich, zero_centered: true }
  global:
    mixer: { type: attention, attention: { softcap: 0.25, scale: 0.5 } }
    ffn: { type: gated_mlp, activation: gelu_tanh }
    norm: { type: rmsnorm, position: sandwich, zero_centered: true }

layer_schedule:
  - { template: sliding, repeat: 1 }
  - { template: global, repeat: 2 }

head: { type: causal_lm, tie_weights: true, logit_softcap: 3.0 }
"""


def _words(case: Case, tmp_path: Path) -> dict[str, Any]:
    """config.json of a case as transformers writes it."""
    config = case.config()
    config.architectures = [case.model_class.__name__]
    config.save_pretrained(tmp_path)
    return config.to_diff_dict()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_spec_is_valid_and_counts_the_parameters_of_the_class(case: Case, tmp_path: Path) -> None:
    _words(case, tmp_path)
    file = import_checkpoint(tmp_path, tmp_path / "out", spec_only=True)
    ir = normalize_to_ir(load_source(file))
    assert count_parameters(ir) == sum(parameter.numel() for parameter in case.build().parameters())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_leaving_out_defaults_leaves_the_meaning(case: Case, tmp_path: Path) -> None:
    importer = next(one for one in get_registry().importers() if one.model_type == case.model_type)
    complete = importer.to_spec(_words(case, tmp_path))
    short = load_source(import_checkpoint(tmp_path, tmp_path / "out", spec_only=True))
    complete["model"].update(name=tmp_path.name, dtype="float32")
    assert normalize_to_ir(complete) == normalize_to_ir(short)


def test_the_spec_reads_as_a_person_would_have_written_it(tmp_path: Path) -> None:
    words = {
        "head_dim": 16,
        "query_pre_attn_scalar": 4,
        "sliding_window": 5,
        "attn_logit_softcapping": 0.25,
        "final_logit_softcapping": 3.0,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    }
    source = tmp_path / "tiny-gemma"
    _words(Case("", "Gemma2", words), source)
    text = import_checkpoint(source, tmp_path / "out", spec_only=True).read_text(encoding="utf-8")
    assert text == GOLDEN


@pytest.mark.parametrize("case", ONE_A_FAMILY, ids=lambda case: case.model_type)
def test_absent_keys_have_the_defaults_of_the_class(case: Case) -> None:
    class_defaults = getattr(transformers, f"{case.family}Config")().to_dict()
    ours = DEFAULTS[case.model_type]
    assert ours == {key: class_defaults[key] for key in ours} or _differs_in_form_only(ours, class_defaults)


def _differs_in_form_only(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    # Qwen's class turns its default window off because use_sliding_window is false; the number itself is the field's.
    return {key: value for key, value in ours.items() if theirs[key] != value} == {"sliding_window": 4096}


@pytest.mark.parametrize("case", ONE_A_FAMILY, ids=lambda case: case.model_type)
def test_an_empty_config_is_the_default_model_of_the_class(case: Case) -> None:
    importer = next(one for one in get_registry().importers() if one.model_type == case.model_type)
    config = getattr(transformers, f"{case.family}Config")()
    from_nothing = normalize_to_ir(importer.to_spec({}))
    assert from_nothing == normalize_to_ir(importer.to_spec(config.to_dict()))


OLD_AND_NEW = {
    "linear": ({"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0}),
    "dynamic": ({"type": "dynamic", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}),
    "llama3": (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 24,
        },
    )
    * 2,
}


@pytest.mark.parametrize("kind", OLD_AND_NEW)
def test_old_and_new_spellings_of_rope_mean_the_same(kind: str) -> None:
    old, new = OLD_AND_NEW[kind]
    before = llama.to_spec({"rope_theta": 5000.0, "rope_scaling": old})
    after = llama.to_spec({"rope_parameters": {"rope_theta": 5000.0, **new}})
    assert before == after
    assert before["embedding"]["rope_theta"] == 5000.0
    assert before["embedding"]["rope_scaling"]["type"] == kind


def test_rope_without_scaling_in_both_spellings() -> None:
    assert llama.to_spec({"rope_theta": 7.0, "rope_scaling": None}) == llama.to_spec(
        {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}
    )


@pytest.mark.parametrize(
    ("words", "scale"),
    [
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, None),
        ({"mscale_all_dim": 1.0}, 192**-0.5 * (0.1 * math.log(40.0) + 1) ** 2),
        ({"mscale_all_dim": 1.0, "attention_factor": 1.2}, 192**-0.5 * (0.1 * math.log(40.0) + 1) ** 2),
        ({"rope_type": "linear", "mscale_all_dim": 0.5}, 192**-0.5 * (0.05 * math.log(40.0) + 1) ** 2),
        ({"mscale": 1.0, "mscale_all_dim": 0}, None),
        ({"mscale": 1.0, "mscale_all_dim": 1.0, "factor": 1.0}, None),
    ],
)
def test_deepseek_scales_as_its_class_does(words: dict[str, Any], scale: float | None) -> None:
    rope = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "rope_theta": 1e4, **words}
    config = {"first_k_dense_replace": 61, "rope_parameters": rope}
    spec = deepseek_v3.to_spec(config)
    assert spec["layer_templates"]["decoder"]["mixer"]["attention"].get("scale") == pytest.approx(scale)
    size = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 8, "num_attention_heads": 1}
    reference = transformers.DeepseekV3Config(**{**config, **size, "num_key_value_heads": 1})
    theirs = DeepseekV3Attention(reference, 0).scaling
    assert normalize_to_ir(spec).layers[0].mixer.params["scale"] == pytest.approx(theirs, rel=1e-12)


def test_older_names_of_deepseek_v4_mean_the_same() -> None:
    old = {"num_hidden_layers": 4, "compress_ratios": [0, 4, 4, 128], "num_hash_layers": 1, "qk_rope_head_dim": 32,
           "compress_rate_csa": 8}  # fmt: skip
    reference = transformers.DeepseekV4Config(**old)
    assert deepseek_v4.to_spec(old) == deepseek_v4.to_spec(reference.to_dict())
    ir = normalize_to_ir(deepseek_v4.to_spec(old))
    kinds = [layer.mixer.params["compression"]["type"] for layer in ir.layers]
    assert kinds == ["shared", "csa", "csa", "hca"]
    assert [layer.ffn.params["routing"]["type"] for layer in ir.layers] == ["hash", "learned", "learned", "learned"]
    assert ir.layers[1].mixer.params["compression"]["m_block"] == 8
    assert ir.position.params["rope_partial_factor"] == 32 / 512


def test_older_names_of_nemotron_mean_the_same() -> None:
    blocks = ["linear_attention", "mlp", "full_attention", "moe", "linear_attention"]
    new = {"layers_block_type": blocks, "conv_kernel": 3, "n_groups": 4, "time_step_min": 0.01, "chunk_size": 64}
    old = {"mamba_d_conv": 3, "mamba_n_groups": 4, "mamba_dt_min": 0.01, "mamba_chunk_size": 64}
    for spelling in (
        {"hybrid_override_pattern": "M-*EM"},
        {"layers_block_type": ["mamba", "mlp", "attention", "moe", "mamba"]},
    ):
        assert nemotron_h.to_spec({**old, **spelling}) == nemotron_h.to_spec(new)
        reference = transformers.NemotronHConfig(**old, **spelling)
        assert reference.layers_block_type == blocks
    assert [layer.ffn.type for layer in normalize_to_ir(nemotron_h.to_spec(new)).layers] == ["mlp", "moe", "none"]


@pytest.mark.parametrize(
    ("d_model", "heads", "head_dim"), [(2688, 64, 64), (4480, 128, 80), (3136, 112, 64), (49, 1, 1)]
)
def test_a_state_space_of_any_width_has_that_width(d_model: int, heads: int, head_dim: int) -> None:
    words = {"hidden_size": d_model, "mamba_num_heads": heads, "mamba_head_dim": head_dim, "n_groups": 1}
    ir = normalize_to_ir(nemotron_h.to_spec({**words, "layers_block_type": ["mamba"], "num_attention_heads": 1,
                                             "num_key_value_heads": 1}))  # fmt: skip
    assert int(ir.layers[0].mixer.params["expand"] * d_model) == heads * head_dim


def test_the_old_name_of_dtype_is_read() -> None:
    assert llama.to_spec({"torch_dtype": "float16"})["model"]["dtype"] == "float16"


@pytest.mark.parametrize(
    ("words", "windows"),
    [
        ({}, [None] * 4),
        ({"use_sliding_window": True, "sliding_window": None}, [None] * 4),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, [None, None, 8, 8]),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, [8] * 4),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 9}, [None] * 4),
        (
            {
                "use_sliding_window": True,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            [8, None, 8, None],
        ),
    ],
)
def test_qwen_windows_follow_the_rule_of_the_class(words: dict[str, Any], windows: list[int | None]) -> None:
    config = {"num_hidden_layers": 4, **words}
    ir = normalize_to_ir(qwen2.to_spec(config))
    assert [layer.mixer.params["window"] for layer in ir.layers] == windows
    reference = transformers.Qwen2Config(**config)
    kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
    assert reference.layer_types == kinds


def test_spec_only_needs_no_weights_and_writes_one_file(tmp_path: Path) -> None:
    _words(ONE_A_FAMILY[0], tmp_path / "source")
    file = import_checkpoint(tmp_path / "source", tmp_path / "deep" / "name.yml", spec_only=True)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["name.yml"]
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["name"] == "source"


WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "safetensors")))
from eulerstack.compiler.importing import import_checkpoint
import_checkpoint(sys.argv[1], sys.argv[2], spec_only=True)
"""


def test_spec_only_works_where_torch_is_not_installed(tmp_path: Path) -> None:
    case = ONE_A_FAMILY[0]
    case.build().save_pretrained(tmp_path / "source")
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "source"), str(tmp_path / "out")]
    subprocess.run(command, check=True, timeout=60)
    assert load_source(tmp_path / "out" / "spec.yml")["model"]["dtype"] == "float32"
