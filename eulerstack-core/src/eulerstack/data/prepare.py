"""JSON lines become packed blocks of tokens, which transformers' Trainer takes as they are.

    python -m eulerstack.data.prepare corpus.jsonl --preset my_model.yml --output-dir data

    from eulerstack.data.prepare import prepare
    prepare(["corpus.jsonl"], "data", tokenizer="bpe-32k", block_tokens=512)
    dataset = datasets.load_from_disk("data")

Every document ends with the tokenizer's end token. `eulerstack.data.packing` says how documents share blocks. Memory
doesn't grow with the files, and the same files give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from eulerstack.compiler.output import check_directory, replacing_directory
from eulerstack.compiler.tokenizer import keep_contract, load_tokenizer
from eulerstack.data.packing import Packer
from eulerstack.data.reading import documents
from eulerstack.errors import CompatibilityError, Diagnostic, EulerStackError, Message, ValidationError, msg
from eulerstack.ir.types import ModelIR

SEE = "reference/sanity.md#preparing-data"
BLOCK_TOKENS = 512
# Documents that are tokenized together, and blocks that are written together.
BATCH = 256


@dataclass(frozen=True)
class Prepared:
    """What has been written: whole blocks of `block_tokens` each. `left_out` tokens at the end fill no block."""

    path: Path
    documents: int
    tokens: int
    blocks: int
    block_tokens: int
    left_out: int


def refused(category: type[EulerStackError], path: str, what: Message, fix: Message) -> EulerStackError:
    """The error about data at `path`."""
    return category([Diagnostic(category.category, what, fix, SEE, path)])


def tokenizer_of(ir: ModelIR, spec_dir: Path | None = None) -> Any:
    """The tokenizer that a spec names, as its contract wants it; `spec_dir` is the spec's own folder.

    Errors: CompatibilityError when the spec names none or it isn't on this machine.
    """
    name = ir.tokenizer_contract["pretrained"]
    if name is None:
        fix = msg("Type tokenizer_contract: { type: hf, pretrained: bpe-32k }")
        raise refused(CompatibilityError, "tokenizer_contract.pretrained", msg("the spec names no tokenizer"), fix)
    tokenizer = found_tokenizer(name, spec_dir)
    keep_contract(tokenizer, ir)
    return tokenizer


def found_tokenizer(name: str, spec_dir: Path | None = None) -> Any:
    """The tokenizer in a folder, of a name that presets ship, or in the HuggingFace cache.

    Errors: CompatibilityError when there is none.
    """
    try:
        return load_tokenizer(name, spec_dir)
    except ModuleNotFoundError:
        raise
    # Broken tokenizer files raise whatever their parser happens to.
    except Exception as error:
        what = msg("there is no tokenizer called {name} on this machine", name=repr(name))
        fix = msg("name a folder that has tokenizer.json, or a tokenizer that a preset names: {name}", name="bpe-32k")
        raise refused(CompatibilityError, "tokenizer", what, fix) from error


def token_ids(texts: Iterable[str], tokenizer: Any) -> Iterator[list[int]]:
    """The tokens of every text with something in it, with what the tokenizer puts around them and its end token.

    Errors: CompatibilityError when the tokenizer has no end token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        what = msg("the tokenizer has no token that ends texts, by which documents are told apart")
        fix = msg("set eos_token in its tokenizer_config.json")
        raise refused(CompatibilityError, "tokenizer", what, fix)
    left = (text for text in texts if text)
    while batch := list(islice(left, BATCH)):
        for ids in tokenizer(batch, verbose=False)["input_ids"]:
            yield ids if ids and ids[-1] == end else [*ids, end]


@contextmanager
def without_bars() -> Iterator[None]:
    """Keeps `datasets` from showing bars of its own while the block runs."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hidden = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            enable_progress_bars()


def prepare(
    files: Iterable[str | Path],
    output_dir: str | Path,
    *,
    tokenizer: Any,
    block_tokens: int = BLOCK_TOKENS,
    field: str = "text",
    force: bool = False,
) -> Prepared:
    """Writes a dataset of packed blocks, for `datasets.load_from_disk`, and says what is in it.

    `tokenizer` is one of transformers', or the name of one: a folder, a name that presets ship, a name in the
    HuggingFace cache. `field` is the key of the text in each line. Empty texts are left out.
    Errors: ValidationError with file, line and column of every bad line; CompatibilityError for a tokenizer that can't
    be used; CompileError when the output can't be written, or is not empty and `force` is false.
    """
    from datasets import Dataset, Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    if block_tokens < 2:
        what = msg("a block of one token has nothing to predict")
        raise refused(ValidationError, "block_tokens", what, msg("use 2 or more"))
    # Before the work, not after it.
    check_directory(output_dir, force)
    if isinstance(tokenizer, str):
        tokenizer = found_tokenizer(tokenizer)
    packer = Packer(block_tokens)
    numbers = List(Value("int32"), length=block_tokens)
    features = Features({"input_ids": numbers, "position_ids": numbers, "labels": numbers})
    examples = packer.blocks_of(token_ids(documents(files, field), tokenizer))
    digest = hashlib.sha256()
    with replacing_directory(output_dir, force) as folder:
        stream = folder / "stream.arrow"
        with ArrowWriter(path=str(stream), features=features, writer_batch_size=BATCH) as writer:
            for example in examples:
                digest.update(repr((example["input_ids"], example["position_ids"])).encode())
                writer.write(example)
            writer.finalize()
        if not packer.blocks:
            what = msg("{tokens} tokens in {documents} documents fill no block of {size}",
                       tokens=packer.tokens, documents=packer.documents, size=block_tokens)  # fmt: skip
            raise refused(ValidationError, "block_tokens", what, msg("give more text, or a smaller --block-tokens"))
        mapped = Dataset.from_file(str(stream))
        # A fingerprint of the content, where the default is one of the time.
        blocks = Dataset(mapped.data, fingerprint=digest.hexdigest()[:16])
        with without_bars():
            blocks.save_to_disk(folder / "blocks")
        del mapped, blocks
        stream.unlink()
        for file in (folder / "blocks").iterdir():
            file.rename(folder / file.name)
        (folder / "blocks").rmdir()
    return Prepared(Path(output_dir), packer.documents, packer.tokens, packer.blocks, block_tokens, packer.left_out)


if __name__ == "__main__":
    from eulerstack.data.command import main

    raise SystemExit(main())
