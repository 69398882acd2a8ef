"""The pytest plugin of the conformance kit: a table of the claims at the end of the report.

Turned on by one line of a package's pyproject.toml:

    [tool.pytest.ini_options]
    addopts = ["-p", "eulerstack.testing.plugin"]
"""

from __future__ import annotations

from typing import Any

from eulerstack.testing.claims import PROPERTY

MARKS = {"holds": "holds", "broken": "BROKEN", "not asked": "not asked", "does not apply": "does not apply"}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each claim that was asked, under the primitive that it is about."""
    rows: dict[str, list[tuple[str, str, str]]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == PROPERTY and report.when == "call":
                    subject, claim, state, why = value
                    rows.setdefault(subject, []).append((claim, state, why))
    if not rows:
        return
    terminalreporter.write_sep("=", "conformance")
    for subject in sorted(rows):
        kept = sum(state == "holds" for _, state, _ in rows[subject])
        terminalreporter.write_line(f"{subject}: {kept} of {len(rows[subject])} claims hold")
        for claim, state, why in rows[subject]:
            colour = {"holds": {"green": True}, "broken": {"red": True}}.get(state, {"yellow": True})
            reason = f" rests on {why}" if state == "not asked" else f"  {why}" if why else ""
            terminalreporter.write_line(f"  {MARKS[state]:<15} {claim}{reason}", **colour)
