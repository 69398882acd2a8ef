"""A small spec, and the command run in this process with its output caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from eulerstack.cli import main

SPEC = """\
# A tiny model: for tests.
schema_version: 1
model: { name: tiny, d_model: 32, vocab_size: 64, max_seq_len: 32, n_heads: 4, n_kv_heads: 2, target_params: 30000 }
tokenizer_contract: { type: hf }
embedding: { type: learned, positional: rope }
layer_templates:
  global: { mixer: { type: attention, attention: {} }, ffn: { type: gated_mlp } }
  local: { mixer: { type: attention, attention: { window: 8 } }, ffn: { type: mlp, bias: true } }
layer_schedule:
  - { template: global, repeat: 2 }
  - { template: local, override: { residual: { scaling: 0.5 } } }
head: { type: causal_lm, logit_softcap: 30.0 }
"""
PARAMS = 64 * 32 + 3 * (2 * 32 * 32 + 2 * 32 * 16 + 2 * 32) + 2 * (3 * 32 * 128) + (2 * 32 * 128 + 128 + 32) + 32


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A valid spec of three layers and `PARAMS` parameters."""
    path = tmp_path / "tiny.yml"
    path.write_text(SPEC, encoding="utf-8")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `eulerstack` in English (unless `lang` says otherwise) in an empty folder."""
    monkeypatch.delenv("EULERSTACK_LANG", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, lang: str | None = "en") -> Outcome:
        chosen = [] if lang is None else ["--lang", lang]
        code = main([*chosen, *map(str, arguments)])
        return Outcome(code, *capsys.readouterr())

    return run
