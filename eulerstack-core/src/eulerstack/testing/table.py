"""The tests of a package's primitives, made from a table of examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eulerstack.plugins.sources import normalised
from eulerstack.testing.claims import CLAIMS, PACKAGE_CLAIMS, PROPERTY, Package, Subject, claims_about, verdict
from eulerstack.testing.example import Example


def conformance(package: str, *examples: Example) -> Callable[..., None]:
    """A test function that asks every claim of every example, and of the package; bound to a name that pytest collects.

    `package` is the distribution's name, `examples` one or more of each of its primitives. A test's id is
    "<primitive>-<claim>", so that `pytest -k "ema and causality"` asks one. With the plugin `eulerstack.testing.plugin`
    turned on, the report ends with a table of what holds.
    Errors: ValueError where two examples can't be told apart.
    """
    names = [str(example) for example in examples]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several examples are called {', '.join(twice)}; give each a label")
    whole = Package(normalised(package), examples)
    subjects: tuple[Subject, ...] = (whole, *examples)
    cases = [
        pytest.param(subject, claim.name, id=f"{subject}-{claim.name}")
        for subject in subjects
        for claim in claims_about(subject)
    ]

    @pytest.mark.parametrize(("subject", "claim"), cases)
    def test_conformance(subject: Subject, claim: str, record_property: Callable[[str, Any], None]) -> None:
        """What a primitive declares is what it does."""
        ask(subject, claim, record_property)

    return test_conformance


def ask(subject: Subject, claim: str, record_property: Callable[[str, Any], None]) -> None:
    """Passes where the claim holds, fails where it is broken, skips where it is not asked."""
    found = verdict(subject, claim)
    record_property(PROPERTY, [str(subject), claim, found.state, found.why.splitlines()[0] if found.why else ""])
    if found.state == "not asked":
        pytest.skip(f"not asked: it rests on {found.why}, which does not hold")
    if found.state == "does not apply":
        pytest.skip(found.why)
    if found.state == "broken":
        sentence = (CLAIMS | PACKAGE_CLAIMS)[claim].sentence
        raise AssertionError(f"{subject} breaks the claim {claim}, that {sentence}:\n{found.why}") from found.error
