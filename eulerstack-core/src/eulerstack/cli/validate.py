"""`eulerstack validate`: is it a spec, does it fit together, is it sensible?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from eulerstack.cli.failures import DEFAULT_MAX_ERRORS
from eulerstack.cli.options import (
    chosen,
    json_option,
    max_errors_option,
    preset_option,
    read,
    set_option,
    settings,
)
from eulerstack.cli.terminal import long_count, say, say_json, styled
from eulerstack.errors import Diagnostic, EulerStackError, Finding
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from eulerstack.dsl.source import Spec
    from eulerstack.ir.types import ModelIR


def validate(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPEC...",
            help=_("Spec files, presets' names or compiled directories; one may be given by --preset instead."),
        ),
    ] = None,
    preset: Annotated[str | None, preset_option()] = None,
    report: Annotated[
        bool, typer.Option("--report", help=_("Add sizes, and warnings about what is legal but unusual."))
    ] = False,
    assignments: Annotated[list[str] | None, set_option()] = None,
    max_errors: Annotated[int, max_errors_option()] = DEFAULT_MAX_ERRORS,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help=_("Accepted for symmetry with compile; this command never writes."))
    ] = False,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """Prints a verdict on every spec, and under `--report` what the realism rules found.

    The problems of all specs are raised together, after the verdicts on those that have none.
    """
    settings.max_errors = max_errors
    several = len(specs or ()) > 1 and preset is None
    references = list(specs or ()) if several else [chosen(specs[0] if specs else None, preset, "validate")]
    verdicts: list[dict[str, Any]] = []
    failures: list[EulerStackError] = []
    for reference in references:
        try:
            source, ir = read(reference, assignments)
        except EulerStackError as error:
            failures.append(error)
            problems = [diagnostic_data(each) for each in error.diagnostics]
            verdicts.append({"valid": False, **({"file": reference} if several else {}), "diagnostics": problems})
            continue
        findings = _findings(source, ir) if report else []
        if as_json:
            verdicts.append(_data(source.file, ir, findings, report))
            continue
        say(_("Valid: {file}").format(file=styled(source.file, "name")))
        if report:
            _print_report(ir, findings)
    if as_json:
        say_json({"valid": not failures, "files": verdicts} if several else verdicts[0])
    if failures:
        raise EulerStackError([each for error in failures for each in error.diagnostics])


def _findings(source: Spec, ir: ModelIR) -> list[Finding]:
    """What the realism rules found, with its place in the spec."""
    from eulerstack.plugins.manager import get_registry
    from eulerstack.schema import report

    return report(ir, get_registry(), source)


def _print_report(ir: ModelIR, findings: list[Finding]) -> None:
    from eulerstack.compiler.cost import count_parameters

    say(_("Schema: ok"))
    say(_("Estimated params: {params}").format(params=long_count(count_parameters(ir))))
    say(_("Layers: {layers}").format(layers=len(ir.layers)))
    if not findings:
        say(_("Realism: nothing unusual"))
        return
    say(_("Realism: warnings: {number}").format(number=len(findings)))
    packages = _packages()
    for finding in findings:
        where = ": ".join(str(part) for part in (finding.location, finding.path) if part)
        rule = ", ".join([finding.rule, *([" ".join(packages[finding.rule])] if finding.rule in packages else [])])
        say(f"  {styled(f'[{rule}]', 'warning')} {where}{': ' if where else ''}{finding.what.render()}")


def _packages() -> dict[str, tuple[str, str]]:
    """By the names of the rules that are not this project's: the package and version that each comes from."""
    from eulerstack.plugins.manager import get_registry

    registry = get_registry()
    return {rule.name: registry.provider(rule) for rule in registry.rules() if not registry.is_own(rule)}


def _data(file: str, ir: ModelIR, findings: list[Finding], report: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"valid": True, "file": file, "diagnostics": []}
    if report:
        from eulerstack.compiler.cost import count_parameters

        data |= {"params": count_parameters(ir), "layers": len(ir.layers)}
        packages = _packages()
        data["findings"] = [
            {
                "rule": each.rule,
                "package": packages[each.rule][0] if each.rule in packages else None,
                "path": each.path,
                "location": location_data(each),
                "what": each.what.render(),
            }
            for each in findings
        ]
    return data


def diagnostic_data(diagnostic: Diagnostic) -> dict[str, Any]:
    """A diagnostic for programs."""
    return {
        "category": diagnostic.category,
        "path": diagnostic.path,
        "location": location_data(diagnostic),
        "what": diagnostic.what.render(),
        "fix": diagnostic.fix.render(),
        "see": diagnostic.see,
    }


def location_data(holder: Diagnostic | Finding) -> dict[str, Any] | None:
    """The place of a diagnostic or finding for programs; None where it has none."""
    place = holder.location
    return {"file": place.file, "line": place.line, "column": place.column} if place else None
