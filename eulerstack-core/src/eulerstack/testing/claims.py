"""The claims of the kit: their names, what they say, what they rest on, and what became of them.

A claim that rests on another one is asked only where that holds, so that a defect is found by the claim that names it,
and not by everything that follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from eulerstack.plugins.primitive import KINDS
from eulerstack.testing.example import Example

# The name under which a test tells the plugin what it found: subject, claim, state, why.
PROPERTY = "eulerstack_claim"
State = Literal["holds", "broken", "not asked", "does not apply"]


class DoesNotApply(Exception):
    """Raised by a check that has nothing to say about this primitive; the text says why."""


@dataclass(frozen=True)
class Package:
    """The distribution that a claim is about, and all examples that its tests give."""

    name: str
    examples: tuple[Example, ...]

    def __str__(self) -> str:
        return self.name


Subject = Example | Package


@dataclass(frozen=True)
class Claim:
    """`check` is "module:function", called with the subject: it raises an AssertionError where the claim is broken."""

    name: str
    sentence: str
    check: str
    rests_on: tuple[str, ...] = ()
    kinds: tuple[str, ...] = KINDS

    def function(self) -> Callable[[Any], None]:
        """The check itself, imported only now: most need torch."""
        module, _, name = self.check.partition(":")
        function: Callable[[Any], None] = getattr(import_module(f"eulerstack.testing.{module}"), name)
        return function


@dataclass(frozen=True)
class Verdict:
    """What became of a claim; `why` says it in words, and `error` is what a broken one raised."""

    state: State
    why: str = ""
    error: BaseException | None = None


CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        Claim("builds", "it validates, builds, and gives finite logits", "checks:builds"),
        Claim("round_trip", "what is printed of it is read again as the same", "checks:round_trip", ("builds",)),
        Claim("constancy", "a forward writes to no parameter, no buffer and no input", "purity:constancy", ("builds",)),
        Claim("initialization", "the seed alone decides about initial weights", "purity:initialization", ("builds",)),
        Claim("parameters", "the parameters that are declared, and active, are built", "accounting:parameters",
              ("builds",)),
        Claim("state", "a cache holds the bytes that explain prints", "accounting:state", ("constancy",)),
        Claim("causality", "future tokens never change the past", "checks:causality", ("constancy",)),
        Claim("batch", "a batch gives the numbers of its rows", "checks:batch", ("constancy",)),
        Claim("cache", "decoding with a cache is the full forward, in every chunking", "checks:cache", ("causality",)),
        Claim("padding", "padding changes nothing, left, right or ragged", "checks:padding", ("cache", "batch")),
        Claim("packing", "packed sequences stay apart", "checks:packing", ("causality",)),
        Claim("beams", "a cache's rows change places with the beams", "checks:beams", ("cache", "batch")),
        Claim("generation", "the same tokens are generated with any cache, and with none", "checks:generation",
              ("cache", "batch")),
        Claim("gradients", "finite differences confirm every gradient", "checks:gradients", ("constancy",)),
        Claim("reference", "it is its naive reference, forward and backward", "reference:check_reference",
              ("causality", "batch", "gradients")),
        Claim("bfloat16", "bfloat16 is as exact as rounding between modules, and trains", "checks:bfloat16",
              ("initialization", "constancy", "gradients")),
        Claim("fields", "every declared field matters", "fields:check_fields", ("initialization", "parameters")),
        Claim("export", "its export gives the same numbers where neither eulerstack nor its package is installed",
              "exporting:check_export", ("initialization", "constancy", "parameters")),
    )
}  # fmt: skip
PACKAGE_CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        Claim("installed", "the plugin works, and brings every primitive that has an example", "package:installed"),
        Claim("complete", "every primitive of the package has an example", "package:complete", ("installed",)),
        Claim("torch_free", "it is listed, validated and priced without importing torch", "package:torch_free",
              ("installed",)),
        Claim("messages", "every message is translated into all languages", "messages:check_messages", ("installed",)),
    )
}  # fmt: skip


def claims_about(subject: Subject) -> Iterator[Claim]:
    """The claims that are asked of a package, or of an example's kind."""
    if isinstance(subject, Package):
        yield from PACKAGE_CLAIMS.values()
    else:
        yield from (claim for claim in CLAIMS.values() if subject.kind in claim.kinds)


_verdicts: dict[tuple[int, str], Verdict] = {}
_subjects: dict[int, Subject] = {}


def verdict(subject: Subject, name: str) -> Verdict:
    """What becomes of one claim, and first of those that it rests on; each is tried once in a process."""
    # The subject is kept, so that no other takes over its number.
    _subjects[id(subject)] = subject
    if (id(subject), name) not in _verdicts:
        _verdicts[id(subject), name] = _tried(subject, name)
    return _verdicts[id(subject), name]


def _tried(subject: Subject, name: str) -> Verdict:
    claim = (PACKAGE_CLAIMS if isinstance(subject, Package) else CLAIMS)[name]
    for other in claim.rests_on:
        found = verdict(subject, other)
        if found.state in ("broken", "not asked"):
            broken = other if found.state == "broken" else found.why
            return Verdict("not asked", broken)
    try:
        claim.function()(subject)
    except DoesNotApply as reason:
        return Verdict("does not apply", str(reason))
    # Whatever goes wrong while a claim is tried breaks it: the code is the plugin's.
    except Exception as error:
        return Verdict("broken", f"{type(error).__name__}: {error}", error)
    return Verdict("holds")
