"""How a hook or a field goes: it works on, and the plugin that uses it is named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from eulerstack.plugins import CacheLayer, Primitive, hookspecs
from eulerstack.plugins.deprecation import deprecated_field
from eulerstack.plugins.manager import Registry
from tests.plugins.test_registry import plugin, primitive, record_of, source


@pytest.fixture
def old_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core once called `eulerstack_mixers` by another name."""
    monkeypatch.setattr(hookspecs, "HOOKS", dict(hookspecs.HOOKS))

    @hookspecs.hook(since="1.0", deprecated="1.4", instead="eulerstack_mixers")
    def eulerstack_token_mixers() -> Iterable[Primitive]:  # type: ignore[empty-body]
        """Token mixers."""

    monkeypatch.setattr(hookspecs, "eulerstack_token_mixers", eulerstack_token_mixers, raising=False)


@pytest.mark.usefixtures("old_hook")
def test_a_deprecated_hook_works_and_is_named() -> None:
    registry = Registry([source("acme", plugin(eulerstack_token_mixers=[primitive("vendor.acme.old")]))])
    record = record_of(registry, "acme")
    assert record.state == "ok" and registry.get("mixer", "vendor.acme.old")
    (notice,) = record.deprecations
    assert notice.render(str) == "eulerstack_token_mixers is deprecated since 1.4; use eulerstack_mixers"


@pytest.mark.usefixtures("old_hook")
def test_a_plugin_for_cores_old_and_new_hands_out_its_words_once() -> None:
    words = [primitive("vendor.acme.both")]
    registry = Registry([source("acme", plugin(eulerstack_token_mixers=words, eulerstack_mixers=words))])
    assert record_of(registry, "acme").state == "ok" and registry.names("mixer") == ["vendor.acme.both"]


@dataclass(frozen=True)
class OldPrimitive(Primitive):
    """A primitive as it was when `paper` was called `citation`."""

    citation: str = field(default="", metadata=deprecated_field("1.4", instead="paper"))
    colour: str = field(default="grey", metadata=deprecated_field("1.5"))


def old(**fields: str) -> Primitive:
    return OldPrimitive(
        "vendor.acme.x", "mixer", "x", "toy.modules:Toy", cache=lambda params: CacheLayer("eulerstack_state"), **fields
    )


def test_a_deprecated_field_works_and_is_named() -> None:
    registry = Registry([source("acme", plugin(eulerstack_mixers=[old(citation="arXiv:1", colour="red")]))])
    assert registry.get("mixer", "vendor.acme.x").paper == "arXiv:1"
    assert [notice.render(str) for notice in record_of(registry, "acme").deprecations] == [
        "OldPrimitive.citation is deprecated since 1.4; use paper",
        "OldPrimitive.colour is deprecated since 1.5",
    ]


def test_a_value_in_the_new_place_is_kept_and_an_unused_old_field_is_not_named() -> None:
    both = Registry([source("acme", plugin(eulerstack_mixers=[old(citation="arXiv:1", paper="arXiv:2")]))])
    assert both.get("mixer", "vendor.acme.x").paper == "arXiv:2"
    unused = Registry([source("acme", plugin(eulerstack_mixers=[old(paper="arXiv:2")]))])
    assert record_of(unused, "acme").deprecations == ()


def test_nothing_of_ours_uses_what_is_deprecated() -> None:
    from eulerstack.plugins.manager import get_registry

    assert [record.deprecations for record in get_registry().records() if record.own and record.deprecations] == []
