"""Import and export undo each other: the same bytes of weights, and a config that the family's class loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from eulerstack.cli import main
from eulerstack.compiler.checkpoints import Checkpoint
from eulerstack.compiler.compile import compile_to_directory
from eulerstack.compiler.conversion import Conversion
from eulerstack.compiler.importing import export_checkpoint, import_checkpoint
from eulerstack.compiler.initial import build_on_meta
from eulerstack.compiler.writer import expected_weights
from eulerstack.dsl.source import load_source
from eulerstack.errors import CompatibilityError
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.plugins.manager import get_registry
from tests.importers.cases import BY_NAME, CASES, ONE_A_FAMILY, Case, Twins

WEIGHTS = "model.safetensors"


def _bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, bytes]]:
    """Names, dtypes and raw bytes."""
    return {name: (tensor.dtype, tensor.view(torch.uint8).numpy().tobytes()) for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_the_round_trip_gives_every_bit_back(name: str, twins_of: Callable[[str], Twins], tmp_path: Path) -> None:
    twins = twins_of(name)
    export_checkpoint(twins.directory, tmp_path / "back", family=twins.case.model_type)
    assert _bits(load_file(tmp_path / "back" / WEIGHTS)) == _bits(load_file(twins.source / WEIGHTS))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    assert type(again) is type(twins.reference)
    tokens = torch.arange(2, 22)[None]
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, twins.case.build()(tokens).logits)


def test_the_command_writes_what_the_function_does(
    twins_of: Callable[[str], Twins], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twins = twins_of("llama_mqa")
    export_checkpoint(twins.directory, tmp_path / "function")
    out = tmp_path / "command"
    assert main(["--lang", "en", "export", str(twins.directory), "--output-dir", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [f"HF model saved: {out}", f"load: LlamaForCausalLM.from_pretrained({str(out)!r})"]
    for file in (tmp_path / "function").iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()
    # What is there is kept; a family that can't say it, or isn't there, is a problem; no directory is a wrong line.
    again = ["--lang", "en", "export", str(twins.directory), "--output-dir", str(out)]
    for arguments, code in ((again, 1), ([*again, "--force", "--family", "gpt2"], 1),
                            ([*again, "--force", "--family", "lama"], 1), (["--lang", "en", "export"], 2)):  # fmt: skip
        assert main(arguments) == code
        assert len(capsys.readouterr().err.splitlines()) % 3 == 0
    assert main([*again, "--force", "--family", "llama"]) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_keep_their_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    case = BY_NAME["gpt2"]
    case.build().to(dtype).save_pretrained(tmp_path / "source")
    import_checkpoint(tmp_path / "source", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    export_checkpoint(tmp_path / "out", tmp_path / "back")
    assert _bits(load_file(tmp_path / "back" / WEIGHTS)) == _bits(load_file(tmp_path / "source" / WEIGHTS))


def test_mixed_dtypes_keep_their_bits(tmp_path: Path) -> None:
    model = BY_NAME["llama_mqa"].build().to(torch.bfloat16)
    model.model.norm.float()
    model.save_pretrained(tmp_path / "source")
    import_checkpoint(tmp_path / "source", tmp_path / "out")
    assert load_file(tmp_path / "out" / WEIGHTS)["model.norm.weight"].dtype == torch.float32
    export_checkpoint(tmp_path / "out", tmp_path / "back")
    assert _bits(load_file(tmp_path / "back" / WEIGHTS)) == _bits(load_file(tmp_path / "source" / WEIGHTS))


@pytest.mark.parametrize("name", ["gpt2", "qwen3_global"])
def test_shards_are_read(name: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    case.build().save_pretrained(tmp_path / "source", max_shard_size="40KB")
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 2
    case.build().save_pretrained(tmp_path / "whole")
    for kind in ("source", "whole"):
        import_checkpoint(tmp_path / kind, tmp_path / f"{kind}_out")
    assert (tmp_path / "source_out" / WEIGHTS).read_bytes() == (tmp_path / "whole_out" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("name", ["gpt2", "llama_biases_tied"])
def test_a_checkpoint_of_the_bare_base_model_is_read(name: str, tmp_path: Path) -> None:
    model = BY_NAME[name].build()
    model.save_pretrained(tmp_path / "source")
    model.base_model.save_pretrained(tmp_path / "bare")
    assert not set(load_file(tmp_path / "bare" / WEIGHTS)) & set(load_file(tmp_path / "source" / WEIGHTS))
    for kind in ("source", "bare"):
        import_checkpoint(tmp_path / kind, tmp_path / f"{kind}_out")
    assert (tmp_path / "bare_out" / WEIGHTS).read_bytes() == (tmp_path / "source_out" / WEIGHTS).read_bytes()


def test_masks_and_frequencies_of_old_checkpoints_are_left_behind(tmp_path: Path) -> None:
    masks = {"attn.bias": torch.ones(1, 1, 64, 64), "attn.masked_bias": torch.ones(())}
    for name, extra in (
        ("gpt2", {f"transformer.h.{layer}.{mask}": masks[mask].clone() for layer in range(3) for mask in masks}),
        ("llama_mqa", {"model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(12)}),
    ):
        source = tmp_path / name
        BY_NAME[name].build().save_pretrained(source)
        tensors = load_file(source / WEIGHTS)
        save_file({**tensors, **extra}, source / WEIGHTS)
        import_checkpoint(source, tmp_path / f"{name}_out")
        assert not set(load_file(tmp_path / f"{name}_out" / WEIGHTS)) & set(extra)


def test_a_stored_copy_of_a_tied_head_is_left_behind(tmp_path: Path) -> None:
    BY_NAME["llama_biases_tied"].build().save_pretrained(tmp_path / "source")
    tensors = load_file(tmp_path / "source" / WEIGHTS)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "source" / WEIGHTS)
    import_checkpoint(tmp_path / "source", tmp_path / "out")
    assert "lm_head.weight" not in load_file(tmp_path / "out" / WEIGHTS)


@pytest.mark.parametrize("name", ["qwen2_moe", "qwen3_moe_mixed", "deepseek_v3_experts"])
def test_experts_that_were_saved_together_are_read(name: str, tmp_path: Path) -> None:
    model = BY_NAME[name].build()
    model.save_pretrained(tmp_path / "apart")
    model.save_pretrained(tmp_path / "together", save_original_format=False)
    assert any(key.endswith("experts.gate_up_proj") for key in load_file(tmp_path / "together" / WEIGHTS))
    for kind in ("apart", "together"):
        import_checkpoint(tmp_path / kind, tmp_path / f"{kind}_out")
    assert (tmp_path / "apart_out" / WEIGHTS).read_bytes() == (tmp_path / "together_out" / WEIGHTS).read_bytes()
    export_checkpoint(tmp_path / "together_out", tmp_path / "back")
    assert _bits(load_file(tmp_path / "back" / WEIGHTS)) == _bits(load_file(tmp_path / "apart" / WEIGHTS))


def test_a_mixture_that_was_never_imported_finds_its_family(tmp_path: Path) -> None:
    spec = json.loads(json.dumps(SPEC))
    spec["layer_templates"]["decoder"]["ffn"] = {"type": "moe", "experts": 4, "top_k": 2}
    compile_to_directory(normalize_to_ir(spec), tmp_path / "mine", seed=3)
    export_checkpoint(tmp_path / "mine", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert model.config.model_type == "mixtral"
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "mine", trust_remote_code=True).eval()
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert (model(tokens).logits - ours(tokens).logits).abs().max() <= 1e-5


def test_weights_are_converted_one_tensor_at_a_time(twins_of: Callable[[str], Twins]) -> None:
    twins = twins_of("gpt2")
    importer = next(one for one in get_registry().importers() if one.model_type == "gpt2")
    ir = normalize_to_ir(load_source(twins.directory / "spec.yml"))
    written = load_file(twins.directory / WEIGHTS)
    with Checkpoint(twins.source) as checkpoint:
        for name, tensor in Conversion(checkpoint, importer, ir, expected_weights(build_on_meta(ir))):
            assert torch.equal(tensor, written.pop(name))
            assert tensor.untyped_storage().nbytes() == tensor.nbytes, "a view would keep its whole source alive"
    assert not written


def test_an_interrupted_import_leaves_nothing_behind(
    twins_of: Callable[[str], Twins], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Conversion.tensor

    def interrupted(conversion: Conversion, name: str) -> torch.Tensor:
        if name == "model.layers.2.ffn.up_proj.weight":
            raise KeyboardInterrupt
        return read(conversion, name)

    monkeypatch.setattr(Conversion, "tensor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_checkpoint(twins_of("gpt2").source, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_tokenizer_and_generation_files_travel_along(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    BY_NAME["qwen2_global"].build().save_pretrained(source)
    texts = {"tokenizer.json": "{}", "merges.txt": "a b\n", "chat_template.jinja": "{{ messages }}"}
    texts["generation_config.json"] = json.dumps({"eos_token_id": 7, "do_sample": True})
    for file, text in texts.items():
        (source / file).write_text(text, encoding="utf-8")
    import_checkpoint(source, out)
    export_checkpoint(out, tmp_path / "back")
    for file, text in texts.items():
        assert (out / file).read_text(encoding="utf-8") == text
        assert (tmp_path / "back" / file).read_text(encoding="utf-8") == text


def test_special_tokens_stay_in_the_config(tmp_path: Path) -> None:
    case = Case("", "Llama", {"eos_token_id": [5, 6], "bos_token_id": 3, "pad_token_id": 4})
    case.build().save_pretrained(tmp_path / "in")
    import_checkpoint(tmp_path / "in", tmp_path / "out")
    export_checkpoint(tmp_path / "out", tmp_path / "back")
    for name in ("out", "back"):
        config = json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8"))
        assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (3, [5, 6], 4)


SPEC: dict[str, Any] = {
    "schema_version": 1,
    "model": {"name": "mine", "d_model": 48, "vocab_size": 61, "max_seq_len": 32, "n_heads": 2, "dtype": "float32"},
    "tokenizer_contract": {"type": "hf"},
    "embedding": {"type": "learned", "positional": "rope"},
    "layer_templates": {
        "decoder": {"mixer": {"type": "attention"}, "ffn": {"type": "gated_mlp"}, "norm": {"type": "rmsnorm"}}
    },
    "layer_schedule": [{"template": "decoder", "repeat": 2}],
    "head": {"type": "causal_lm", "tie_weights": False},
}


def test_a_model_that_was_never_imported_finds_its_family(tmp_path: Path) -> None:
    compile_to_directory(normalize_to_ir(SPEC), tmp_path / "mine", seed=3)
    export_checkpoint(tmp_path / "mine", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert model.config.model_type == "llama"
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "mine", trust_remote_code=True).eval()
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert (model(tokens).logits - ours(tokens).logits).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("model.residual_multiplier", {"model": {**SPEC["model"], "residual_multiplier": 0.5}}),
        ("embedding.rope_interleaved", {"embedding": {**SPEC["embedding"], "rope_interleaved": True}}),
        ("head.logit_scale", {"head": {**SPEC["head"], "logit_scale": 0.5}}),
        (
            "layers[1].residual.scaling",
            {
                "layer_schedule": [
                    {"template": "decoder"},
                    {"template": "decoder", "override": {"residual": {"scaling": 0.5}}},
                ]
            },
        ),
    ],
)
def test_what_no_family_can_say_is_named_and_nothing_is_written(
    path: str, change: dict[str, Any], tmp_path: Path
) -> None:
    compile_to_directory(normalize_to_ir({**SPEC, **change}), tmp_path / "mine")
    with pytest.raises(CompatibilityError) as caught:
        export_checkpoint(tmp_path / "mine", tmp_path / "out")
    assert caught.value.diagnostics[0].path == path
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("case", ONE_A_FAMILY, ids=lambda case: case.model_type)
def test_a_synonym_is_no_obstacle(case: Case) -> None:
    importer = next(one for one in get_registry().importers() if one.model_type == case.model_type)
    layer = {
        "dims": {"head_dim": 24},
        "mixer": {"type": "attention", "scale": None, "window": 5, "window_mode": "standard"},
        "ffn": {"type": "gated_mlp", "activation": "swiglu"},
    }
    other = {
        "dims": {"head_dim": 24},
        "mixer": {"type": "attention", "scale": 24**-0.5, "window": 5, "window_mode": "sliding"},
        "ffn": {"type": "gated_mlp", "activation": "silu"},
    }
    assert importer.canonical(layer) == importer.canonical(other)
