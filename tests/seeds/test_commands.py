"""The commands and Python snippets of the first documents run as they stand there, and print what is promised."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import eulerstack as es
from eulerstack.cli import main
from eulerstack.i18n import VARIABLE
from eulerstack.ir.printer import print_ir
from eulerstack.presets import find
from tests.model.specs import changed
from tests.model.variants import VARIANTS

PAGE = (Path(__file__).parent / "commands.md").read_text(encoding="utf-8")
COMMANDS = PAGE.partition("```bash\n")[2].partition("```")[0].splitlines()
SMALL = ["d_model=64", "n_heads=4", "n_kv_heads=2", "d_ff=64", "vocab_size=32064"]
# Words of the language that a command's answer must hold, by which it is known to be in it.
SAID = {"ko": "유효", "zh": "有效", "ja": "有効", "en": "Valid"}


def small(name: str) -> str:
    """The spec of a preset, narrowed."""
    return print_ir(es.normalize_to_ir(es.load(name, [f"model.{word}" for word in SMALL])))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """What each command printed, and the folder in which all of them ran."""
    folder = tmp_path_factory.mktemp("seeds")
    presets = folder / "configs" / "presets"
    presets.mkdir(parents=True)
    (presets / "arch_expert_research.yml").write_bytes(find("arch_expert_research").read_bytes())
    for path, name in (("configs/presets/arch_advanced_jamba.yml", "arch_advanced_jamba"),
                       ("my_model.yml", "llm_0p1b_simple"), ("my_spec.yml", "arch_expert_reasoning_r1")):  # fmt: skip
        (folder / path).write_text(small(name), encoding="utf-8")
    found: dict[str, tuple[int, str, str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in COMMANDS:
            found[line] = run(line, patch)
        yield SimpleNamespace(folder=folder, output=found)


def run(line: str, patch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in this process."""
    import contextlib
    import io

    words = shlex.split(line)
    patch.delenv(VARIABLE, raising=False)
    while "=" in words[0]:
        patch.setenv(*words.pop(0).split("=", 1))
    assert words.pop(0) == "eulerstack"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_runs(line: str, shown: SimpleNamespace) -> None:
    code, out, err = shown.output[line]
    assert code == 0, err
    assert out


@pytest.mark.parametrize(
    ("line", "language"),
    [
        ("eulerstack validate --preset my_model.yml", "ko"),
        ("eulerstack --lang zh validate --preset my_model.yml", "zh"),
        ("eulerstack --lang en validate --preset my_model.yml", "en"),
        ("EULERSTACK_LANG=en eulerstack validate --preset my_model.yml", "en"),
        ("EULERSTACK_LANG=ja eulerstack validate --preset my_model.yml", "ja"),
    ],
)
def test_it_answers_in_the_language_asked_for(line: str, language: str, shown: SimpleNamespace) -> None:
    assert SAID[language] in shown.output[line][1]


def test_explain_shows_what_the_tutorial_shows(shown: SimpleNamespace) -> None:
    line = "eulerstack explain --preset configs/presets/arch_expert_research.yml"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shown.folder)
        code, out, _ = run(line.replace("eulerstack ", "eulerstack --lang en "), patch)
    assert code == 0
    for words in ("Model: arch-expert-research", "Dims: d_model=", "n_heads=", "n_kv_heads=", "Layer templates:",
                  "Layer schedule:", "Total layers: 2", "Head: causal_lm", "Compile target: huggingface",
                  "Estimated params: 1.5"):  # fmt: skip
        assert words in out, words
    assert re.search(r"^Target params: 1\.50B .*\(ratio: [\d.]+%\)$", out, re.M)


def test_a_compile_prints_what_it_wrote_and_how_to_load_it(shown: SimpleNamespace) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shown.folder)
        preset = "configs/presets/arch_advanced_jamba.yml"
        _, out, _ = run(f"eulerstack --lang en compile --preset {preset} --output-dir ./again", patch)
    assert out.startswith("HF model saved: ./again\n")
    assert "model_type: eulerstack" in out and "layers: 20" in out and re.search(r"params: [\d.]+M \([\d,]+\)", out)
    assert "load: AutoModelForCausalLM.from_pretrained('./again', trust_remote_code=True)" in out
    names = {path.name for path in (shown.folder / "my_jamba_model").iterdir()}
    assert {"config.json", "model.safetensors", "configuration_eulerstack.py", "modeling_eulerstack.py"} <= names
    printed = json.loads(shown.output[f"eulerstack compile --preset {preset} --print-config"][1])
    for path in ("compiled.json", "other.json"):
        assert json.loads((shown.folder / path).read_text(encoding="utf-8")) == printed
    assert printed["model_type"] == "eulerstack"


def test_the_directory_loads_as_the_tutorial_loads_it(shown: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shown.folder)
    from eulerstack.hf.auto_register import register_eulerstack_auto_classes

    register_eulerstack_auto_classes()
    model = AutoModelForCausalLM.from_pretrained("./my_jamba_model", trust_remote_code=True, dtype="bfloat16")
    assert type(model).__name__ == "EulerStackForCausalLM" and model.config.n_layers == 20
    ids = torch.randint(0, 32000, (1, 128))
    with torch.no_grad():
        out = model(ids)
    assert out.logits.shape == (1, 128, 32064)
    assert AutoModelForCausalLM.from_pretrained("./my_model", trust_remote_code=True).dtype == torch.bfloat16


def test_phases_are_kept_in_the_directorys_config(shown: SimpleNamespace) -> None:
    config = json.loads((shown.folder / "my_spec_model" / "config.json").read_text(encoding="utf-8"))
    assert [mode["name"] for mode in config["v1_extensions"]["execution_modes"]] == ["think", "answer"]
    assert config["v1_extensions"]["transition"]["token"] == "<think_end>"


def test_the_ttt_plugin_is_named_by_one_import() -> None:
    import eulerstack.plugins.ttt  # noqa: F401
    from eulerstack.compiler.compile import compile_to_hf_model

    model = compile_to_hf_model(es.normalize_to_ir(VARIANTS["ttt_linear"]), seed=0)
    assert any(type(module).__module__.startswith("eulerstack_ttt") for module in model.modules())


def test_parts_are_used_by_hand() -> None:
    from eulerstack.components.depth_gate import DepthGate
    from eulerstack.components.integrator import DiscreteIntegrator, ODEIntegrator
    from eulerstack.components.parallel_stream import ParallelStream

    my_attention_layer, fast_mod, slow_mod, refine_block = (torch.nn.Linear(768, 768) for _ in range(4))
    x = torch.randn(2, 8, 768)
    gate = DepthGate(d_model=768, capacity=0.5, router="top_k")
    y = gate(x, body_fn=my_attention_layer)
    assert y.shape == x.shape and ((y != x).any(-1).sum(1) == 4).all()
    p = ParallelStream(
        [fast_mod, slow_mod],
        d_model=768,
        merge_type="concat",
        merge_projection=True,
        stream_names=["fast", "slow"],
    )
    assert p(x).shape == x.shape
    integrator = DiscreteIntegrator(refine_block, steps=4)
    odeint = ODEIntegrator(refine_block, steps=4, method="rk4")
    for shared in (integrator, odeint):
        assert shared(x).shape == x.shape
        assert sum(each.numel() for each in shared.parameters()) == 768 * 769


def test_a_memory_learns_by_the_hook_and_names_its_surprise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec: dict[str, Any] = changed(VARIANTS["memory_neural_online"], {"model.vocab_size": 32000,
                                   "tokenizer_contract.pretrained": "bpe-32k"})  # fmt: skip
    es.compile_to_directory(es.normalize_to_ir(spec), "titans_model", seed=0)
    tokenizer = AutoTokenizer.from_pretrained("./titans_model", trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained("./titans_model", trust_remote_code=True)
    ids = tokenizer("a fact to memorize", return_tensors="pt").input_ids
    out = model(ids, output_hidden_states=True)
    surprise = model.step_memory_at_inference(out.hidden_states[-1])
    assert set(surprise) and all(re.fullmatch(r"eulerstack\.layers\.\d+\.titans_memory", key) for key in surprise)
    assert all(value > 0 for value in surprise.values())
