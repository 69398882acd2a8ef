"""`eulerstack explain`: the model that a spec describes, what it is made of and what it costs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eulerstack.cli.describe import describe
from eulerstack.cli.failures import DEFAULT_MAX_ERRORS
from eulerstack.cli.options import (
    chosen,
    force_option,
    json_option,
    max_errors_option,
    preset_option,
    read,
    set_option,
    settings,
    spec_argument,
)
from eulerstack.cli.terminal import (
    Column,
    columns,
    long_count,
    say,
    say_json,
    say_table,
    short_bytes,
    short_count,
    styled,
    wrap,
)
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eulerstack.dsl.source import Spec
    from eulerstack.ir.types import ModelIR

MAX_ROWS = 200
UNBROKEN = "\u00a0"


def explain(
    spec: Annotated[str | None, spec_argument()] = None,
    preset: Annotated[str | None, preset_option()] = None,
    assignments: Annotated[list[str] | None, set_option()] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", metavar="N", min=1, help=_("Tokens of context that costs are given at (default max_seq_len).")
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, help=_("Sequences that the cache is given for (default 1)."))
    ] = 1,
    html: Annotated[
        str | None,
        typer.Option(
            "--html", metavar="FILE", help=_("Write a page with pictures, which needs no network, to a file.")
        ),
    ] = None,
    force: Annotated[bool, force_option()] = False,
    max_errors: Annotated[int, max_errors_option()] = DEFAULT_MAX_ERRORS,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """Prints sizes, templates, schedule, parameters, FLOPs and cache bytes, then a table of the layers."""
    settings.max_errors = max_errors
    reference = chosen(spec, preset, "explain")
    source, ir = read(reference, assignments)
    data = describe(source, ir, context, batch)
    if html is not None:
        _write_page(html, reference, source, ir, data, force)
    if as_json:
        say_json(data)
    if as_json or html is not None:
        return
    _print_sizes(data)
    _print_templates(data)
    _print_cost(data)
    _print_layers(data["layers"], data["stages"])


def _write_page(file: str, reference: str, source: Spec, ir: ModelIR, data: dict[str, Any], force: bool) -> None:
    from eulerstack.cli.page import page
    from eulerstack.compiler.output import keep_input, replacing_file

    keep_input(file, reference if os.path.isdir(reference) else source.file)
    with replacing_file(file, page(source, ir, data), force):
        pass
    say(_("Page saved: {file}").format(file=styled(file, "name")))


def _pair(label: str, text: str, indent: int = 0) -> None:
    """`label: text`, its continuation lines indented below the label."""
    lines = wrap(_("{label}: {text}").format(label=label, text=text), min(columns(), 110) - indent - 2)
    lines[0] = lines[0].replace(label, styled(label, "name"), 1)
    for number, line in enumerate(lines):
        say(" " * (indent + (2 if number else 0)) + line)


def _print_sizes(data: Mapping[str, Any]) -> None:
    model = data["model"]
    _pair(_("Model"), model["name"])
    if model["family_hint"]:
        _pair(_("Family hint"), model["family_hint"])
    sizes = ("d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff")
    _pair(_("Dims"), ", ".join(f"{name}={model[name]}" for name in sizes))
    _pair(
        _("Vocab"),
        _("{vocab}, max seq: {length}, dtype: {dtype}").format(
            vocab=model["vocab_size"], length=model["max_seq_len"], dtype=model["dtype"]
        ),
    )
    _pair(_("Positional"), _with_params(data["positional"]))


def _print_templates(data: Mapping[str, Any]) -> None:
    say(styled(_("Layer templates:"), "name"))
    for name, template in data["templates"].items():
        say(f"  {name}:")
        for part, primitive in template.items():
            _pair(part, _with_params(primitive), indent=4)
    say(styled(_("Layer schedule:"), "name"))
    for is_parallel, entries in groupby(data["schedule"], key=lambda entry: "parallel" in entry):
        for entry in entries if is_parallel else ():
            _print_streams(entry)
        if not is_parallel:
            _print_entries(entries)
    _pair(_("Total layers"), str(data["total_layers"]))
    head = dict(data["head"])
    tied = f", tie_weights={head.pop('tie_weights')}"
    _pair(_("Head"), f"{head['type']}{tied}{_params(head)}")
    _pair(_("Compile target"), data["compile_target"])
    compatibility = {word: value for word, value in data["compatibility"].items() if word != "compile_target"}
    if compatibility:
        _pair(_("Compatibility"), _flow(compatibility))
    if data["training"]:
        _pair(_("Training hints"), _flow(data["training"]))
    if data["phases"]:
        _print_phases(data["phases"])
    if data["tissue"]:
        _print_tissue(data["tissue"])
    if data["extensions"]:
        _pair(_("Reserved keys"), ", ".join(data["extensions"]))


def _print_phases(phases: Mapping[str, Any]) -> None:
    transition = phases["transition"]
    _pair(_("Phases"), " ".join(filter(None, (transition["type"], transition["token"]))))
    for mode in phases["modes"]:
        changed = {
            word: mode[word]
            for word, default in (("kv_share", True), ("loss_weight", 1.0), ("visible_to_user", True),
                                  ("per_token_rationale", False))
            if mode[word] != default
        }  # fmt: skip
        _pair(mode["name"], " ".join([f"{mode['max_tokens']:,}", *([_flow(changed)] if changed else [])]), indent=2)
    _pair(
        _("Longest context of the phases"),
        _("{tokens} tokens beside the prompt, cache {bytes}").format(
            tokens=f"{phases['longest_context']:,}", bytes=short_bytes(phases["cache_bytes"])
        ),
    )


def _print_entries(entries: Iterable[Mapping[str, Any]], before: str = "  ") -> None:
    """Entries one after another, each line after the same text."""
    for line in wrap(", ".join(map(_entry, entries)), min(columns(), 110) - len(before)):
        say(before + line.replace(UNBROKEN, " "))


def _print_streams(stage: Mapping[str, Any]) -> None:
    """A parallel stage as a picture: its streams side by side, and where they meet."""
    for number, stream in enumerate(stage["parallel"]):
        say(f"  {'├' if number else '┬'}─ {styled(stream['stream'], 'name')}")
        _print_entries(stream["body"], "  │    ")
    say(f"  ┴─ {_with_params(stage['merge'])}")


def _entry(entry: Mapping[str, Any]) -> str:
    """An entry of the schedule on one line."""
    if "integrator" in entry:
        return f"{_with_params(entry['integrator'])}: {entry['body']}"
    override = f" {_flow(entry['override'])}" if entry["override"] else ""
    gating = "" if entry["depth_gating"] is None else f" depth_gating {_flow(entry['depth_gating'])}"
    return f"{entry['template']}{UNBROKEN}x{entry['repeat']}{override}{gating}"


def _print_tissue(tissue: Mapping[str, Any]) -> None:
    names = [column["name"] for column in tissue["columns"]]
    _pair(_("Columns"), tissue["connectivity"])
    for index, column in enumerate(tissue["columns"]):
        targets = [names[after] for before, after in tissue["edges"] if before == index]
        parts = [column["role"] or "", _("layers {layers}").format(layers=_ranges(column["layers"]))]
        if targets:
            parts.append("→ " + ", ".join(targets))
        _pair(column["name"], "; ".join(filter(None, parts)), indent=2)


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers with runs drawn together: 0–3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)


def _print_cost(data: Mapping[str, Any]) -> None:
    params, target = data["params"], data["params"]["target"]
    _pair(_("Estimated params"), long_count(params["total"]))
    _pair(_("Active params"), long_count(params["active"]))
    _pair(_("Weights"), short_bytes(data["weight_bytes"]))
    _pair(_("Embedding params"), long_count(params["embedding"]))
    if target:
        ratio = f"{params['total'] / target:.1%}"
        _pair(_("Target params"), _("{params} (ratio: {ratio})").format(params=long_count(target), ratio=ratio))
    length = data["context"]
    flops, cache = data["flops_per_token"], data["cache_bytes"]
    _pair(
        _("FLOPs per token"),
        _("{flops} at a context of {length}").format(flops=short_count(flops, "G"), length=length),
    )
    _pair(
        _("FLOPs per prompt token"),
        _("{flops} on average over {length} tokens").format(
            flops=short_count(data["flops_per_prompt_token"], "G"), length=length
        ),
    )
    full = _("{full} at {length} tokens") if data["batch"] == 1 else _("{full} at {batch} times {length} tokens")
    parts = [
        _("{per_token} per token, {fixed} fixed").format(
            per_token=short_bytes(cache["per_token"]), fixed=short_bytes(cache["fixed"])
        ),
        full.format(full=short_bytes(cache["at_context"]), batch=data["batch"], length=length),
    ]
    _pair(_("Cache"), _("{first}, {second}").format(first=parts[0], second=parts[1]))
    if data["drafts"]:
        _print_drafts(data["drafts"], length)
    _print_training(data["training_cost"])
    for group in data["replaced_linears"]:
        _print_linears(group)


def _print_drafts(drafts: Mapping[str, Any], length: int) -> None:
    text = _("{params} params, {active} active; {flops} a round and {cache} of cache at {length} tokens").format(
        params=long_count(drafts["params"]),
        active=long_count(drafts["active"]),
        flops=short_count(drafts["flops_per_token"], "G"),
        cache=short_bytes(drafts["cache_bytes"]["at_context"]),
        length=length,
    )
    _pair(_("Draft layers"), text)


def _print_training(cost: Mapping[str, Any]) -> None:
    state, total = (_range(cost[key]) for key in ("optimizer_bytes", "total_bytes"))
    text = _("{flops} per token; {total}: weights {weights}, gradients {gradients}, optimizer {state}")
    numbers = {"weights": short_bytes(cost["weight_bytes"]), "gradients": short_bytes(cost["gradient_bytes"])}
    flops = short_count(cost["flops_per_token"], "G")
    _pair(_("Training"), text.format(flops=flops, total=total, state=state, **numbers))


def _print_linears(group: Mapping[str, Any]) -> None:
    """Linear layers that a key has computed by other means: what they are, and what they cost instead."""
    own = {word: value for word, value in group["params"].items() if word != "bias"}
    text = _(
        "{count} linear layers as {form}: {params} params instead of {dense}, {flops} per token instead of {before}"
    )
    numbers = {"params": long_count(group["total_params"]), "dense": long_count(group["dense_params"])}
    flops = short_count(group["flops_per_token"], "G")
    before = short_count(group["dense_flops_per_token"], "G")
    count, form = len(group["modules"]), f"{group['type']} {_flow(own)}"
    _pair(group["path"], text.format(count=count, form=form, flops=flops, before=before, **numbers))


def _range(bounds: Sequence[int]) -> str:
    least, most = map(short_bytes, bounds)
    return least if least == most else f"{least}–{most}"


def _print_layers(groups: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]) -> None:
    """The table of layers; what a stage costs beside its layers stands after the last of them."""
    say()
    titles = [
        Column(_("Layer")),
        Column(_("Template"), wraps=True),
        Column(_("Mixer"), wraps=True),
        Column("FFN", wraps=True),
        Column(_("Params"), right=True),
        Column("FLOPs", right=True),
        Column(_("Cache"), right=True),
    ]
    priced = [stage for stage in stages if stage["params"] or stage["flops_per_token"]]
    lines = [(group["last"], 0, group) for group in groups] + [(stage["last"], 1, stage) for stage in priced]
    lines.sort(key=lambda line: line[:2])
    rows = [
        (
            str(each["first"]) if each["first"] == each["last"] else f"{each['first']}–{each['last']}",
            f"{each['word']}: {each['type']}" if is_stage else _in_stage(each),
            "" if is_stage else each["mixer"],
            "" if is_stage else each["ffn"],
            short_count(each["params"]),
            short_count(each["flops_per_token"], "G"),
            short_bytes(each["cache_bytes_at_context"]),
        )
        for _last, is_stage, each in lines[:MAX_ROWS]
    ]
    say_table(titles, rows)
    if len(lines) > MAX_ROWS:
        say(_("Rows left out: {number}; --json has them all.").format(number=len(lines) - MAX_ROWS))


def _in_stage(group: Mapping[str, Any]) -> str:
    """The template of a group of layers, with the stage that holds them."""
    if group["stage"] is None:
        return str(group["template"])
    times = f"{UNBROKEN}x{group['evaluations']}" if group["evaluations"] > 1 else ""
    inside = group["stage"].get("stream", group["stage"]["word"])
    return f"{group['template']}{times} ({inside})".replace(UNBROKEN, " ")


def _with_params(primitive: Mapping[str, Any]) -> str:
    position = f", {primitive['position']}" if "position" in primitive else ""
    return f"{primitive['type']}{position}{_params(primitive)}"


def _params(primitive: Mapping[str, Any]) -> str:
    return f" {_flow(primitive['params'])}" if primitive.get("params") else ""


def _flow(value: Any) -> str:
    """A value in YAML's flow form, as the spec would write it; a primitive as everywhere here; long lists are cut."""
    if isinstance(value, Mapping) and set(value) == {"type", "params"}:
        return _with_params(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        shown = [_flow(item) for item in value[:8]]
        return "[" + ", ".join([*shown, "…"] if len(value) > 8 else shown) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
