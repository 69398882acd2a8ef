"""`eulerstack import` makes a spec of a checkpoint; without torch, building says what to install."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "dtype": "float32",
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint's folder that holds its configuration alone."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    return folder


def test_the_spec_alone_needs_no_weights_and_validates(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    outcome = run("import", checkpoint, "--output-dir", "out", "--spec-only")
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out.splitlines() == [f"Imported: {checkpoint}", "spec: out/spec.yml"]
    assert run("validate", tmp_path / "out" / "spec.yml").code == 0


@pytest.mark.parametrize("target", ["out", "out/spec.yml"])
def test_what_is_there_is_replaced_only_with_force(run: Run, checkpoint: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "spec.yml").write_text("precious", encoding="utf-8")
    outcome = run("import", checkpoint, "--output-dir", target, "--spec-only")
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3 and outcome.err.startswith("CompileError: ")
    assert (tmp_path / "out" / "spec.yml").read_text(encoding="utf-8") == "precious"
    assert run("import", checkpoint, "--output-dir", target, "--spec-only", "--force").code == 0


def test_a_checkpoint_is_never_replaced_by_what_is_made_of_it(run: Run, checkpoint: Path) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    outcome = run("import", checkpoint, "--output-dir", checkpoint, "--force")
    assert outcome.code == 1 and "what is read is there" in outcome.err
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


def test_a_checkpoint_without_weights_is_a_problem_and_nothing_is_written(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    outcome = run("import", checkpoint, "--output-dir", "out")
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3 and "--spec-only" in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["compile", "import"])
def test_without_torch_building_says_what_to_install(spec: Path, checkpoint: Path, command: str) -> None:
    (checkpoint / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'safetensors')));"
        "from eulerstack.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    source, output = (spec if command == "compile" else checkpoint), spec.parent / "out"
    arguments = ["--lang", "en", command, str(source), "--output-dir", str(output)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 3
    assert 'Fix: pip install "eulerstack-core[hf]"' in done.stderr
    assert not output.exists()
