"""`python -m eulerstack.sanity`: short training runs of one or more specs, on the same data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eulerstack.cli.failures import FAILED, UsageFault, report
from eulerstack.cli.options import force_option, json_option, lang_option, read, set_option
from eulerstack.cli.programs import run_program
from eulerstack.cli.terminal import Column, say, say_json, say_table, short_count, working
from eulerstack.compiler.output import check_file
from eulerstack.errors import CompatibilityError, Diagnostic, Message, msg
from eulerstack.i18n import gettext as _
from eulerstack.sanity.report import Report

if TYPE_CHECKING:
    from eulerstack.ir.types import ModelIR

NAME = "python -m eulerstack.sanity"
SEE = "reference/sanity.md#a-short-training-run"
PICTURES = (".svg", ".png", ".pdf")


def sanity(
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            "-p",
            metavar="SPEC",
            help=_("A spec file, a preset's name, or a compiled directory; give several to compare them."),
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help=_("A directory of prepared data.")),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=3, help=_("Steps to train (default 50)."))] = 50,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help=_("Blocks that a step reads (default 4)."))
    ] = 4,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help=_("Seed of weights and of the data's order (default 0)."))
    ] = 0,
    plot: Annotated[
        str | None, typer.Option("--plot", metavar="FILE", help=_("Draw the losses and gradient norms: .svg or .png."))
    ] = None,
    force: Annotated[bool, force_option()] = False,
    assignments: Annotated[list[str] | None, set_option()] = None,
    as_json: Annotated[bool, json_option()] = False,
    lang: Annotated[str | None, lang_option()] = None,
) -> None:
    """Trains each spec and prints what happened; ends with 1 where a loss has not fallen."""
    sample = Message("{command} --preset my_model.yml --data data", (("command", NAME),))
    for path, value in (("--preset", presets), ("--data", data)):
        if not value:
            raise UsageFault(path, msg("a value is missing"), sample, SEE)
    assert presets and data
    if plot is not None:
        if Path(plot).suffix not in PICTURES:
            what = msg("there is no picture format {ending}", ending=repr(Path(plot).suffix))
            raise UsageFault("--plot", what, msg("use {option}", option="--plot sanity.svg"), SEE)
        check_file(plot, force)
    # All of them before the first is trained.
    models = [read(reference, assignments)[1] for reference in presets]
    dataset = _dataset(data)
    reports = [_trained(ir, dataset, steps, batch_size, seed) for ir in models]
    if plot is not None:
        from eulerstack.sanity import plot as draw

        draw(reports, plot)
    if as_json:
        say_json([each.as_dict() for each in reports])
    else:
        _print(reports)
        if plot is not None:
            say(_("Picture saved: {file}").format(file=plot))
    if faults := [_fault(each) for each in reports if not each.falls]:
        report(faults)
        raise typer.Exit(FAILED)


def _dataset(data: str) -> Any:
    from datasets import load_from_disk

    try:
        return load_from_disk(data)
    # What is no such directory is reported in many ways.
    except Exception as error:
        what = msg("{directory} holds no prepared data", directory=repr(data))
        fix = Message("python -m eulerstack.data.prepare corpus.jsonl --preset my_model.yml --output-dir data")
        raise CompatibilityError([Diagnostic(CompatibilityError.category, what, fix, SEE, "--data")]) from error


def _trained(ir: ModelIR, dataset: Any, steps: int, batch_size: int, seed: int) -> Report:
    from eulerstack.compiler.compile import compile_to_hf_model
    from eulerstack.sanity import check

    with working(_("Training {name}…").format(name=ir.model["name"])):
        # Weights in float32: a step is smaller than what bfloat16 can tell apart.
        model: Any = compile_to_hf_model(ir, seed=seed).float()
        if ir.compatibility["quant_aware_training"]["enabled"]:
            from eulerstack.hf import prepare_quant_aware_training

            model = prepare_quant_aware_training(model)
        return check(model, dataset, name=ir.model["name"], steps=steps, batch_size=batch_size, seed=seed)


def _print(reports: Sequence[Report]) -> None:
    say_table(
        [
            Column(_("Name")),
            Column(_("Params"), right=True),
            Column(_("First loss"), right=True),
            Column(_("Last loss"), right=True),
            Column(_("Falls"), right=True),
            Column(_("Gradient norm"), right=True),
            Column(_("Dead"), right=True),
            Column(_("Busiest expert"), right=True),
            Column(_("Tokens/s"), right=True),
        ],
        [
            (
                each.name,
                short_count(each.parameters),
                f"{each.first_loss:.3f}",
                f"{each.last_loss:.3f}",
                _("yes") if each.falls else _("no"),
                f"{statistics.median(each.gradient_norms):.3g}" if each.gradient_norms else "—",
                str(len(each.dead_parameters)),
                f"{max(load.busiest for load in each.experts):.2f}×" if each.experts else "—",
                short_count(round(each.tokens_per_second)),
            )
            for each in reports
        ],
    )
    for each in reports:
        say()
        say(
            _("{name}: {steps} steps of {tokens} tokens on {device}; guessing all tokens alike costs {loss}").format(
                name=each.name,
                steps=len(each.losses),
                tokens=f"{each.batch_size * each.block_tokens:,}",
                device=each.device,
                loss=f"{each.uniform_loss:.3f}",
            )
        )
        for name in each.dead_parameters:
            say("  " + _("no step gave a gradient to {parameter}").format(parameter=name))
        for load in each.experts:
            idle = ", ".join(map(str, load.idle)) or "—"
            say(
                "  "
                + _("{module}: the busiest of {experts} experts has {share}× an even share; idle: {idle}").format(
                    module=load.module, experts=load.experts, share=f"{load.busiest:.2f}", idle=idle
                )
            )


def _fault(each: Report) -> Diagnostic:
    if each.is_finite:
        what = msg("{name}: in {steps} steps the loss has not fallen by more than its noise: {first}, then {last}",
                   name=each.name, steps=len(each.losses), first=f"{each.first_loss:.3f}",
                   last=f"{each.last_loss:.3f}")  # fmt: skip
        fix = msg("train longer by --steps, or try another rate: --set training_hints.lr_peak=0.001")
    else:
        what = msg("{name}: a loss or a gradient is not a finite number", name=each.name)
        fix = msg("try a smaller rate: --set training_hints.lr_peak=0.0001")
    return Diagnostic(CompatibilityError.category, what, fix, SEE, "training_hints")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv`, or this process's arguments, and returns its exit code."""
    return run_program(NAME, sanity, lambda: _("Train for a few steps, and tell whether the model learns."), argv)
