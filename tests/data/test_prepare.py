"""JSON lines become packed blocks: what is in them, how documents are kept apart, what is refused and where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import eulerstack as es
from eulerstack.data.command import main
from eulerstack.data.packing import Packer
from eulerstack.data.prepare import found_tokenizer, prepare
from eulerstack.data.reading import documents
from eulerstack.errors import CompatibilityError, CompileError, ValidationError
from tests.model.specs import built, changed, tiny_spec
from tests.model.variants import VARIANTS

TEXTS = ["def f(x):\n    return x\n", "import os\n", "class A:\n    pass\n" * 5, "한국어 문장입니다."]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return found_tokenizer("bpe-32k")


def lines(path: Path, texts: Sequence[str] = TEXTS) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_blocks_are_all_documents_end_to_end(tmp_path: Path, tokenizer) -> None:
    done = prepare([lines(tmp_path / "a.jsonl")], tmp_path / "data", tokenizer=tokenizer, block_tokens=16)
    blocks = datasets.load_from_disk(tmp_path / "data")
    expected = [id for text in TEXTS for id in [*tokenizer(text).input_ids, tokenizer.eos_token_id]]
    flat = [id for block in blocks["input_ids"] for id in block]
    assert flat == expected[: len(flat)] and done.left_out == len(expected) - len(flat) < 16
    assert (done.documents, done.tokens, done.blocks) == (4, len(expected), len(blocks))
    assert blocks.column_names == ["input_ids", "position_ids", "labels"]


def test_positions_begin_again_with_every_document_and_the_first_token_is_no_target() -> None:
    packer = Packer(4)
    blocks = list(packer.blocks_of([[5, 6, 7, 8, 9], [10], [11, 12, 13]]))
    assert [block["input_ids"] for block in blocks] == [[5, 6, 7, 8], [9, 10, 11, 12]]
    assert [block["position_ids"] for block in blocks] == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert [block["labels"] for block in blocks] == [[-100, 6, 7, 8], [-100, -100, -100, 12]]
    assert packer.left_out == 1 and packer.documents == 3 and packer.tokens == 9


@pytest.mark.parametrize("name", ["plain", "mixed_windows"])
def test_the_model_computes_for_a_block_what_it_computes_for_each_document_alone(name: str) -> None:
    texts = [[3, 9, 4, 7, 2], [8, 2], [5, 6, 1, 2, 9, 9, 2, 3, 11]]
    (block,) = Packer(16).blocks_of(texts)
    model = built(VARIANTS[name])
    batch = {key: torch.tensor([value]) for key, value in block.items()}
    with torch.no_grad():
        packed = model(**batch, use_cache=False)
        start, loss, targets = 0, 0.0, 0
        for text in texts:
            ids = torch.tensor([text])
            alone = model(ids, labels=ids, use_cache=False)
            assert (packed.logits[:, start : start + len(text)] - alone.logits).abs().max() < 1e-5
            start, targets = start + len(text), targets + len(text) - 1
            loss += float(alone.loss) * (len(text) - 1)
    assert float(packed.loss) == pytest.approx(loss / targets, abs=1e-5) and start == 16


def test_the_same_files_give_the_same_bytes(tmp_path: Path, tokenizer) -> None:
    for name in ("one", "two"):
        prepare([lines(tmp_path / f"{name}.jsonl")], tmp_path / name, tokenizer=tokenizer, block_tokens=8)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and one


def test_a_file_is_read_as_far_as_blocks_are_asked_for(tmp_path: Path) -> None:
    read = documents([lines(tmp_path / "a.jsonl", ["x"] * 3), tmp_path / "missing.jsonl"])
    assert [next(read), next(read)] == ["x", "x"]


def test_every_bad_line_is_named_with_its_place(tmp_path: Path, tokenizer) -> None:
    path = tmp_path / "bad.jsonl"
    bad = [b'{"text": 3}', b"[]", b"", b'{"a": "b"}', b'{"text": "x"', b'{"text": "caf\xe9"}', rb'{"text": "\ud800"}']
    path.write_bytes(b"\n".join([b'{"text": "good"}', *bad, b"[" * 100_000, b"9" * 5000]))
    with pytest.raises(ValidationError) as error:
        prepare([path, tmp_path / "none.jsonl"], tmp_path / "data", tokenizer=tokenizer)
    heads = str(error.value).splitlines()[::3]
    places = [(2, 1), (3, 1), (5, 1), (6, 13), (7, 14), (8, 1), (9, 1), (10, 1)]
    assert [head.split(": ")[1] for head in heads[:-1]] == [f"{path}:{line}:{column}" for line, column in places]
    assert "none.jsonl" in heads[-1] and not (tmp_path / "data").exists()


def test_a_document_ends_once_whatever_the_tokenizer_adds(tmp_path: Path) -> None:
    spec = changed(tiny_spec(), {"tokenizer_contract": {"type": "hf", "pretrained": "bpe-32k", "add_eos": True,
                                                        "add_bos": True}, "model.vocab_size": 32000})  # fmt: skip
    es.compile_to_directory(es.normalize_to_ir(spec), tmp_path / "model", seed=0)
    prepare([lines(tmp_path / "a.jsonl")], tmp_path / "data", tokenizer=str(tmp_path / "model"), block_tokens=8)
    flat = [id for block in datasets.load_from_disk(tmp_path / "data")["input_ids"] for id in block]
    assert flat[0] == 0 and all(flat[place + 1] == 0 for place, id in enumerate(flat[:-1]) if id == 1)


def test_what_cannot_be_prepared_is_refused_before_anything_is_written(tmp_path: Path, tokenizer) -> None:
    file, output = lines(tmp_path / "a.jsonl"), tmp_path / "data"
    with pytest.raises(CompatibilityError, match="no-such-tokenizer"):
        prepare([file], output, tokenizer="no-such-tokenizer")
    with pytest.raises(ValidationError, match="512"):
        prepare([file], output, tokenizer=tokenizer)
    with pytest.raises(ValidationError):
        prepare([file], output, tokenizer=tokenizer, block_tokens=1)
    endless = found_tokenizer("bpe-32k")
    endless.eos_token = None
    with pytest.raises(CompatibilityError):
        prepare([file], output, tokenizer=endless, block_tokens=8)
    assert not output.exists()
    prepare([file], output, tokenizer=tokenizer, block_tokens=8)
    with pytest.raises(CompileError, match="--force"):
        prepare([file], output, tokenizer=tokenizer, block_tokens=8)
    prepare([file], output, tokenizer=tokenizer, block_tokens=9, force=True)
    assert len(datasets.load_from_disk(output)[0]["input_ids"]) == 9


def test_the_command_takes_the_specs_tokenizer_and_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "a.jsonl")
    command = ["a.jsonl", "--preset", "llm_0p1b_simple", "--output-dir", "data", "--lang", "en"]
    assert main([*command, "--block-tokens", "16"]) == 0
    assert "blocks: 4 of 16 tokens" in capsys.readouterr().out
    assert main([*command, "--block-tokens", "4096"]) == 2
    assert "--block-tokens 2048" in capsys.readouterr().err
    assert main(["a.jsonl", "--output-dir", "data", "--lang", "en"]) == 2
    assert main([*command, "--field", "body", "--force"]) == 1
    assert "a.jsonl:1:1" in capsys.readouterr().err
    assert main(["--help", "--lang", "ko"]) == 0
    assert "사용법" in capsys.readouterr().out
