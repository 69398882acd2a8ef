"""The command `eulerstack`.

Exit codes: 0 done; 1 the spec, the installation or the output has problems (three lines each on standard error);
2 the command line itself is wrong; 3 `diff` found a difference; 130 interrupted; 141 the reader of a pipe went away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None, program: Callable[[Sequence[str]], int] | None = None) -> int:
    """Runs one command, or a `program` of its own, and returns its exit code; never raises for bad input."""
    # Imported here, so that an interrupt while it is imported ends the command as quietly as one later.
    try:
        from eulerstack.cli.running import run_command

        return run_command(argv, program)
    except KeyboardInterrupt:
        return 130
