"""Trains the tokenizer that the presets use, so that nothing has to be downloaded to compile and generate.

    python tools/train_tokenizer.py [--output-dir DIRECTORY]

A byte-level BPE with a vocabulary of exactly 32,000 pieces, the three special ones included: every text can be
written in it. The corpus is on every machine that has CPython: the sources of its standard library.
"""

from __future__ import annotations

import argparse
import json
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent
OUTPUT_DIR = ROOT / "presets" / "eulerstack_presets" / "tokenizers" / "bpe-32k"
VOCABULARY_SIZE = 32_000
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
LEFT_OUT = {"site-packages", "__pycache__", "lib2to3", "idlelib", "ensurepip"}


def corpus() -> Iterator[str]:
    """The standard library's Python sources, file by file, in the order of their paths."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not LEFT_OUT & set(path.relative_to(library).parts):
            yield path.read_text(encoding="utf-8", errors="ignore")


def train() -> Tokenizer:
    """The trained tokenizer; the special pieces are 0, 1 and 2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise SystemExit(f"The corpus gave {tokenizer.get_vocab_size()} pieces, not {VOCABULARY_SIZE}")
    return tokenizer


def write(tokenizer: Tokenizer, output_dir: Path) -> None:
    """The two files that transformers reads, compactly."""
    output_dir.mkdir(parents=True, exist_ok=True)
    data = json.loads(tokenizer.to_str())
    (output_dir / "tokenizer.json").write_text(
        json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    (output_dir / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Trains, writes, says what it did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=OUTPUT_DIR)
    options = parser.parse_args()
    write(train(), options.output_dir)
    source = f"the standard library of CPython {platform.python_version()}"
    print(f"{options.output_dir}: {VOCABULARY_SIZE} pieces, from {source}")


if __name__ == "__main__":
    main()
