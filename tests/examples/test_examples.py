"""Every script in examples/ runs as its first lines say, at a small size; those that need no eulerstack without it."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SMALL = [f"--set=model.{word}" for word in ("d_model=32", "n_heads=2", "n_kv_heads=2", "d_ff=32")]
SMALL += [f"--set=layer_schedule[{index}].repeat=1" for index in range(4)]
WITHOUT_EULERSTACK = """
import runpy, sys
sys.path.insert(0, {scripts!r})
from generate_without_eulerstack import forbid_eulerstack
forbid_eulerstack()
for arguments in {commands!r}:
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
"""


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    """Runs an example in this process."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small hybrid's directory, and data, as the first examples make them."""
    from eulerstack.data.command import main

    folder = tmp_path_factory.mktemp("examples")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, "01_compile_and_export.py", *SMALL, "--output-dir", folder / "model")
        run(monkeypatch, "make_corpus.py", folder / "corpus.jsonl", *sorted(EXAMPLES.glob("*.py")))
    command = [folder / "corpus.jsonl", "--preset", folder / "model", "--output-dir", folder / "data"]
    assert main([*map(str, command), "--block-tokens", "32"]) == 0
    return folder


def test_a_spec_becomes_a_directory(folder: Path) -> None:
    assert {"config.json", "model.safetensors", "spec.yml"} <= {path.name for path in (folder / "model").iterdir()}


def test_presets_are_compared_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import runpy, sys; sys.modules['torch'] = None; "
         f"runpy.run_path({str(EXAMPLES / '03_architecture_evolution.py')!r}, run_name='__main__')"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6 and "mamba" in done.stdout


def test_a_directory_is_trained_generates_and_takes_adapters_where_eulerstack_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--steps", 6, "--batch-size", 2)
    run(monkeypatch, "04_finetune_with_trainer.py", folder / "model", folder / "data",
        "--output-dir", folder / "trained", "--evaluated-blocks", 2, *small)  # fmt: skip
    before, after = map(float, re.findall(r"(\d+\.\d+) (?:before|after)", capsys.readouterr().out))
    assert after < before
    commands = [
        ["02_load_and_generate.py", folder / "trained", "--new-tokens", 4],
        ["05_lora_with_peft.py", folder / "trained", folder / "data", "--output-dir", folder / "lora", *small],
    ]
    lines = [[str(EXAMPLES / name), *map(str, arguments)] for name, *arguments in commands]
    program = WITHOUT_EULERSTACK.format(scripts=str(ROOT / "scripts"), commands=lines)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for sentence in ("greedy:", "the next step read 1 token", "adapter saved and loaded", "merged, saved and loaded"):
        assert sentence in done.stdout, done.stdout


def test_every_example_says_how_it_is_run_and_is_run_here() -> None:
    own = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"python examples/{path.name}" in path.read_text(encoding="utf-8").partition('"""\n\nfrom')[0]
        assert path.name in own
