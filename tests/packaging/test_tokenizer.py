"""The shipped tokenizer: loads offline, writes every text, fits the presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import eulerstack_presets

PRESETS = Path(eulerstack_presets.__file__).parent
FOLDER = PRESETS / "tokenizers" / "bpe-32k"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """As transformers loads it, from its folder alone."""
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


def test_the_vocabulary_has_exactly_32000_pieces_with_the_special_ones_first(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert len(tokenizer) == len(tokenizer.get_vocab()) == 32_000
    assert tokenizer.convert_tokens_to_ids(["<|bos|>", "<|eos|>", "<|pad|>"]) == [0, 1, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert sorted(tokenizer.get_vocab().values()) == list(range(32_000))


@pytest.mark.parametrize(
    "text",
    [
        "An architecture is a promise.",
        "안녕하세요, 세계! 你好,世界。こんにちは世界 ¡Hola, mundo!",
        "def f(x):\n\treturn  x ** 2   # spaces\r\n\n\n",
        "\x00\x7f\u200b\U0001f9ea e\u0301 é",
        " leading and trailing ",
        "",
    ],
)
def test_every_text_comes_back_unchanged(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_a_special_piece_in_a_text_is_one_token(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer("a<|eos|>").input_ids[-1] == 1


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_500_000


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yml")), ids=lambda path: path.stem)
def test_every_preset_names_it_and_has_its_vocabulary_size(path: Path) -> None:
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert spec["tokenizer_contract"]["pretrained"] == "bpe-32k"
    # A token that ends phases is one more; tables have a multiple of 64 rows then.
    assert spec["model"]["vocab_size"] == (32_064 if "token" in spec.get("transition", {}) else 32_000)
