"""`python -m eulerstack.data.prepare`: JSON lines become packed blocks of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from eulerstack.cli.failures import UsageFault
from eulerstack.cli.options import force_option, lang_option, read
from eulerstack.cli.programs import run_program
from eulerstack.cli.terminal import say, styled, working
from eulerstack.errors import Message, msg
from eulerstack.i18n import gettext as _

NAME = "python -m eulerstack.data.prepare"
SEE = "reference/sanity.md#preparing-data"


def prepare_data(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE", help=_("Files of JSON lines: one object with a text a line."))
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", "-p", metavar="SPEC", help=_("The spec whose tokenizer to use: a file or a preset.")),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="NAME", help=_("A tokenizer's folder or name, in place of --preset.")),
    ] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", metavar="DIR", help=_("Where to write."))] = None,
    block_tokens: Annotated[
        int | None,
        typer.Option(
            "--block-tokens",
            metavar="N",
            min=2,
            help=_("Tokens of a block (default 512, or the spec's max_seq_len where that is less)."),
        ),
    ] = None,
    field: Annotated[
        str, typer.Option("--field", metavar="KEY", help=_("The key of the text in each line (default text)."))
    ] = "text",
    force: Annotated[bool, force_option()] = False,
    lang: Annotated[str | None, lang_option()] = None,
) -> None:
    """Writes the blocks and says how many there are."""
    sample = Message("{command} corpus.jsonl --preset my_model.yml --output-dir data", (("command", NAME),))
    for path, value in (("FILE", files), ("--output-dir", output_dir)):
        if not value:
            raise UsageFault(path, msg("a value is missing"), sample, SEE)
    if (preset is None) == (tokenizer is None):
        raise UsageFault("--preset", msg("give either --preset or --tokenizer"), sample, SEE)
    assert files and output_dir
    from eulerstack.data.prepare import BLOCK_TOKENS, found_tokenizer, prepare, tokenizer_of

    size = block_tokens or BLOCK_TOKENS
    if preset is not None:
        source, ir = read(preset)
        longest = ir.model["max_seq_len"]
        if block_tokens is not None and block_tokens > longest:
            what = msg("the spec reads at most {tokens} tokens", tokens=longest)
            raise UsageFault("--block-tokens", what, msg("use {option}", option=f"--block-tokens {longest}"), SEE)
        size = min(size, longest)
        used = tokenizer_of(ir, Path(source.file).parent)
    else:
        assert tokenizer is not None
        used = found_tokenizer(tokenizer)
    with working(_("Preparing the data…")):
        done = prepare(files, output_dir, tokenizer=used, block_tokens=size, field=field, force=force)
    say(_("Data saved: {directory}").format(directory=styled(output_dir, "name")))
    say(_("documents: {documents}").format(documents=f"{done.documents:,}"))
    say(_("blocks: {blocks} of {size} tokens").format(blocks=f"{done.blocks:,}", size=f"{done.block_tokens:,}"))
    say(_("left out: {tokens} tokens at the end").format(tokens=f"{done.left_out:,}"))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv`, or this process's arguments, and returns its exit code."""
    return run_program(NAME, prepare_data, lambda: _("Turn JSON lines into packed blocks of tokens."), argv)
