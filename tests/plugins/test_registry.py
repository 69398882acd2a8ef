"""The registry: faults stay with the plugin that made them, and nothing depends on the order of loading."""

from __future__ import annotations

import itertools
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from eulerstack.errors import CompatibilityError
from eulerstack.plugins import CacheLayer, Importer, Namespace, Primitive, SchemaFragment, Target, hookimpl
from eulerstack.plugins import manager as manager_module
from eulerstack.plugins.manager import PluginSource, Registry, get_registry, reset_registry


def primitive(name: str, kind: Any = "mixer", **fields: Any) -> Primitive:
    needed = {"mixer": {"cache": lambda params: CacheLayer("eulerstack_state")},
              "residual": {"norm_slots": lambda position, has_ffn: ("mixer_norm",)}}.get(kind, {})  # fmt: skip
    return Primitive(name=name, kind=kind, summary="a toy", module="toy.modules:Toy", **{**needed, **fields})


def plugin(**hooks: Any) -> types.ModuleType:
    """A plugin module whose hooks return the given values, or are the given functions."""
    module = types.ModuleType("toy")
    for name, value in hooks.items():
        is_hook = name.startswith("eulerstack_")
        setattr(module, name, hookimpl(_hook(value)) if is_hook else value)
    return module


def importer(model_type: str) -> Importer:
    return Importer(model_type, "Toy", "a toy", to_spec=dict, to_config=lambda ir: {}, rules=())


def _hook(value: Any) -> Any:
    return value if callable(value) else lambda: value


def source(package: str, loaded: Any, name: str = "words") -> PluginSource:
    def load() -> object:
        if isinstance(loaded, BaseException):
            raise loaded
        return loaded

    return PluginSource(name, package, "2.0", load)


def record_of(registry: Registry, package: str) -> Any:
    (record,) = [record for record in registry.records() if record.package == package]
    return record


GOOD = source("acme", plugin(eulerstack_mixers=[primitive("vendor.acme.good")]))


def test_a_word_is_found_by_kind_and_name_with_its_origin() -> None:
    registry = Registry([GOOD])
    found = registry.get("mixer", "vendor.acme.good")
    assert registry.origin(found) == ("acme", "2.0")
    assert registry.names("mixer") == ["vendor.acme.good"]
    with pytest.raises(LookupError):
        registry.get("ffn", "vendor.acme.good")


def raises(error: BaseException) -> Any:
    def hook() -> object:
        raise error

    return hook


FAULTS = {
    "import error": ImportError("no module named triton"),
    "exit at import": SystemExit(3),
    "an error of its own": ZeroDivisionError("division by zero"),
    "hook raises": plugin(eulerstack_mixers=raises(RuntimeError("no GPU"))),
    "hook exits": plugin(eulerstack_mixers=raises(SystemExit(1))),
    "not iterable": plugin(eulerstack_mixers=7),
    "returns nothing": plugin(eulerstack_mixers=lambda: None),
    "not a primitive": plugin(eulerstack_mixers=["vendor.acme.text"]),
    "wrong kind": plugin(eulerstack_ffns=[primitive("vendor.acme.x")]),
    "same name twice": plugin(eulerstack_mixers=[primitive("vendor.acme.x"), primitive("vendor.acme.x")]),
    "name outside vendor": plugin(eulerstack_mixers=[primitive("gla")]),
    "vendor without a name": plugin(eulerstack_mixers=[primitive("vendor.acme")]),
    "target outside vendor": plugin(eulerstack_targets=[Target("onnx", "x", "a:b")]),
    "namespace outside vendor": plugin(eulerstack_namespaces=[Namespace("experimental.x", {}, "x")]),
    "field outside vendor": plugin(eulerstack_schema_fragments=[SchemaFragment("model", {"d_model": {}})]),
    "field of no section": plugin(eulerstack_schema_fragments=[SchemaFragment("layer_templates", {"vendor.a.b": {}})]),
    "field without a mapping": plugin(eulerstack_schema_fragments=[SchemaFragment("model", {"vendor.a.b": True})]),
    "default against its schema": plugin(
        eulerstack_schema_fragments=[SchemaFragment("model", {"vendor.a.b": {"type": "integer", "default": "x"}})]
    ),
    "a target's function without a colon": plugin(eulerstack_targets=[Target("vendor.a.onnx", "x", "acme.write")]),
    "a handler's function without a colon": plugin(
        eulerstack_namespaces=[Namespace("vendor.a.b", {}, "x", compile="acme.handle")]
    ),
    "bad schema": plugin(eulerstack_mixers=[primitive("vendor.acme.x", schema={"type": "whatever"})]),
    "bad inline words": plugin(eulerstack_ffns=[primitive("vendor.acme.x", kind="ffn", inline={"a": 3})]),
    "bad module": plugin(eulerstack_mixers=[Primitive("vendor.acme.x", "mixer", "s", "no colon")]),
    "other API": plugin(eulerstack_mixers=[primitive("vendor.acme.x")], EULERSTACK_API_VERSION=2),
    "unknown hook": plugin(eulerstack_mixer=[primitive("vendor.acme.x")]),
    "no hooks": types.ModuleType("empty"),
    "an argument that no hook has": plugin(),
}
FAULTS["an argument that no hook has"].eulerstack_mixers = hookimpl(lambda everything: [])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_plugin_is_set_aside_and_the_others_work(name: str) -> None:
    registry = Registry([source("aaa-faulty", FAULTS[name]), GOOD])
    record = record_of(registry, "aaa-faulty")
    assert record.state == "broken"
    assert record.error.render()
    assert "Traceback" in record.traceback
    assert registry.get("mixer", "vendor.acme.good")
    assert registry.names("mixer") == ["vendor.acme.good"]
    assert registry.targets() == Registry([]).targets()


@pytest.mark.parametrize(
    ("hook", "near"),
    [("eulerstack_mixer", "eulerstack_mixers"), ("mixers", "eulerstack_mixers"), ("eulerstack_zebra", None)],
)
def test_a_misspelt_hook_is_met_with_the_nearest_that_there_is(hook: str, near: str | None) -> None:
    misspelt = types.ModuleType("toy")
    setattr(misspelt, hook, hookimpl(lambda: [primitive("vendor.acme.x")]))
    (faulty,) = Registry([source("aaa-faulty", misspelt)]).faults()
    assert hook in faulty.error.render() and dict(faulty.error.values).get("near") == near


def test_an_unmarked_hook_is_a_fault_and_not_silence() -> None:
    module = types.ModuleType("unmarked")
    module.eulerstack_mixers = lambda: [primitive("vendor.acme.x")]  # type: ignore[attr-defined]
    record = record_of(Registry([source("unmarked", module)]), "unmarked")
    assert record.state == "broken" and "@hookimpl" in record.error.template + str(record.error.values)


def test_a_hook_wrapper_can_not_change_what_others_provide() -> None:
    module = types.ModuleType("wrapping")

    @hookimpl(wrapper=True)
    def eulerstack_mixers() -> Iterator[None]:
        yield
        return []

    module.eulerstack_mixers = eulerstack_mixers  # type: ignore[attr-defined]
    registry = Registry([source("wrapping", module), GOOD])
    assert record_of(registry, "wrapping").state == "broken"
    assert registry.names("mixer") == ["vendor.acme.good"]


def test_an_interrupt_while_loading_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        Registry([source("slow", KeyboardInterrupt())])


def states(registry: Registry) -> dict[str, tuple[str, str]]:
    return {
        record.package: (record.state, record.error.render() if record.error else "") for record in registry.records()
    }


def test_nothing_depends_on_the_order_of_loading() -> None:
    sources = [
        source("eulerstack-mixers", plugin(eulerstack_mixers=[primitive("attention")])),
        source("zeta", plugin(eulerstack_mixers=[primitive("vendor.shared.x")])),
        source("alpha", plugin(eulerstack_mixers=[primitive("vendor.shared.x"), primitive("vendor.alpha.y")])),
        source("greedy", plugin(eulerstack_mixers=[primitive("attention")])),
        GOOD,
    ]
    outcomes = [Registry(order) for order in itertools.permutations(sources)]
    first = outcomes[0]
    assert {package: state for package, (state, _) in states(first).items() if package != "eulerstack-core"} == {
        "eulerstack-mixers": "ok",
        "zeta": "conflicting",
        "alpha": "conflicting",
        "greedy": "broken",
        "acme": "ok",
    }
    assert first.names("mixer") == ["attention", "vendor.acme.good"]
    assert all(states(each) == states(first) and each.names("mixer") == first.names("mixer") for each in outcomes)


def test_our_own_packages_win_a_name_over_third_parties() -> None:
    ours = source("eulerstack", plugin(eulerstack_mixers=[primitive("vendor.acme.good")]))
    for order in ([ours, GOOD], [GOOD, ours]):
        registry = Registry(order)
        assert registry.origin(registry.get("mixer", "vendor.acme.good"))[0] == "eulerstack"
        assert record_of(registry, "acme").state == "conflicting"


def test_the_same_module_registered_twice_counts_once() -> None:
    module = plugin(eulerstack_mixers=[primitive("attention")])
    registry = Registry([source("eulerstack-mixers", module), source("eulerstack-dev", module)])
    assert registry.names("mixer") == ["attention"]
    assert sorted(record.state for record in registry.records() if record.name == "words") == ["disabled", "ok"]


def test_importers_are_asked_for_only_when_needed() -> None:
    calls: list[int] = []

    def lazily() -> list[Importer]:
        calls.append(1)
        return [importer("phi3")]

    module = plugin(eulerstack_mixers=[primitive("vendor.acme.good")])
    module.eulerstack_importers = hookimpl(lambda: lazily())  # type: ignore[attr-defined]
    registry = Registry([source("acme", module)])
    assert calls == []
    assert [importer.model_type for importer in registry.importers()] == ["phi3"]
    registry.importers()
    assert calls == [1]


def test_failing_importers_leave_the_plugins_words_usable() -> None:
    module = plugin(eulerstack_mixers=[primitive("vendor.acme.good")], eulerstack_importers=raises(OSError("disk")))
    registry = Registry([source("acme", module)])
    assert registry.importers() == []
    assert registry.get("mixer", "vendor.acme.good")
    assert record_of(registry, "acme").state == "broken"


def test_a_missing_word_is_explained_by_the_plugin_that_would_provide_it() -> None:
    registry = Registry([
        source("acme-gla", ImportError("no triton")),
        source("other", ValueError("bad")),
        source("greedy", plugin(eulerstack_mixers=[primitive("gla")])),
    ])  # fmt: skip
    explained = registry.explain_missing("mixer", "vendor.acme.gla")
    assert explained is not None and "acme-gla" in explained.render() and "no triton" in explained.render()
    exact = registry.explain_missing("mixer", "gla")
    assert exact is not None and "greedy" in exact.render()


def test_nothing_is_explained_where_nothing_was_set_aside() -> None:
    registry = Registry([GOOD])
    if not registry.faults():
        assert registry.explain_missing("mixer", "vendor.nobody.x") is None


@pytest.mark.parametrize("named", ["words", "acme", "ACME", "acme:words", " acme , other"])
def test_a_plugin_can_be_switched_off_by_the_environment(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("EULERSTACK_DISABLE_PLUGINS", named)
    loaded = source("acme", AssertionError("a disabled plugin is not even imported"))
    registry = Registry([loaded])
    assert record_of(registry, "acme").state == "disabled"
    assert registry.names("mixer") == []


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("acme-gal", "did you mean acme-gla?"),
        ("zzz", "EULERSTACK_DISABLE_PLUGINS names zzz, which switches off no installed plugin"),
        # The core's own rules and target can't be done without.
        ("core", "names core, which switches off no installed plugin"),
    ],
)
def test_a_name_that_switches_nothing_off_is_told(monkeypatch: pytest.MonkeyPatch, named: str, said: str) -> None:
    monkeypatch.setenv("EULERSTACK_DISABLE_PLUGINS", f"acme-gla,{named}")
    registry = Registry([source("acme-gla", AssertionError("not even imported"))])
    (warning,) = registry.warnings()
    assert said in warning.render(str)
    monkeypatch.setenv("EULERSTACK_DISABLE_PLUGINS", "acme-gla")
    assert Registry([source("acme-gla", AssertionError("not even imported"))]).warnings() == []


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    reset_registry()
    yield monkeypatch
    reset_registry()


def test_strict_mode_names_every_plugin_that_was_set_aside(fresh_registry: pytest.MonkeyPatch) -> None:
    fresh_registry.setattr(
        manager_module, "installed_sources", lambda: [source("acme", ImportError("x")), source("b", SystemExit())]
    )
    assert get_registry()
    fresh_registry.setenv("EULERSTACK_STRICT_PLUGINS", "1")
    with pytest.raises(CompatibilityError) as caught:
        get_registry()
    text = str(caught.value)
    assert "acme" in text and "Fix: pip install --upgrade b" in text
    assert get_registry(strict=False)


def test_strict_mode_refuses_a_name_that_switches_nothing_off(fresh_registry: pytest.MonkeyPatch) -> None:
    fresh_registry.setattr(manager_module, "installed_sources", lambda: [GOOD])
    fresh_registry.setenv("EULERSTACK_DISABLE_PLUGINS", "acmee")
    assert get_registry(strict=False)
    with pytest.raises(CompatibilityError) as caught:
        get_registry(strict=True)
    (diagnostic,) = caught.value.diagnostics
    assert "acmee" in diagnostic.what.render(str) and diagnostic.see == "reference/plugins.md#environment"


def test_the_registry_is_made_once_however_many_threads_ask(fresh_registry: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    fresh_registry.setattr(manager_module, "installed_sources", lambda: reads.append(1) or [GOOD])
    found: list[Registry] = []
    threads = [threading.Thread(target=lambda: found.append(get_registry())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1 and all(each is found[0] for each in found)


def test_a_plugin_that_asks_for_the_registry_while_loading_is_broken_and_not_a_deadlock(
    fresh_registry: pytest.MonkeyPatch,
) -> None:
    curious = PluginSource("curious", "curious", "1", lambda: get_registry())
    fresh_registry.setattr(manager_module, "installed_sources", lambda: [curious, GOOD])
    assert record_of(get_registry(), "curious").state == "broken"
    assert get_registry().names("mixer") == ["vendor.acme.good"]


def test_reading_the_installed_plugins_never_imports_torch() -> None:
    import subprocess

    code = (
        "import sys; from eulerstack.plugins.manager import get_registry; r = get_registry(); r.records();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_installed_plugin_of_ours_works() -> None:
    assert [
        record for record in get_registry().records() if record.own and record.state not in ("ok", "disabled")
    ] == []


def test_damaged_packages_do_not_hide_the_others(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eulerstack.plugins.sources import installed_sources

    whole = {source.identity for source in installed_sources()}
    nameless = tmp_path / "foo-1.0.dist-info"
    nameless.mkdir()
    (nameless / "entry_points.txt").write_text("[eulerstack]\nwords = foo.plugin\n", encoding="utf-8")
    garbled = tmp_path / "bar-1.0.dist-info"
    garbled.mkdir()
    (garbled / "METADATA").write_text("Metadata-Version: 2.1\nName: bar\nVersion: 1.0\n", encoding="utf-8")
    (garbled / "entry_points.txt").write_text("[eulerstack]\nno equals sign\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert whole <= {source.identity for source in installed_sources()}
    record = record_of(Registry(installed_sources()), "unknown-foo")
    assert record.state == "broken"


def test_what_a_third_party_prints_while_it_is_imported_stays_out_of_our_output(capfd) -> None:
    def load() -> object:
        print("hello")
        print("hello", file=sys.stderr)
        return plugin(eulerstack_mixers=[primitive("vendor.toy.a")])

    registry = Registry([PluginSource("words", "toy", "1", load)])
    assert registry.names("mixer") == ["vendor.toy.a"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("answer", [None, 3, ZeroDivisionError("no")])
def test_a_price_that_a_plugin_can_not_give_names_the_plugin(answer: Any) -> None:
    from eulerstack.plugins import Cost
    from eulerstack.plugins.asking import ask

    def cost() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    registry = Registry([source("toy-words", plugin(eulerstack_mixers=[primitive("vendor.toy.a")]))])
    with pytest.raises(CompatibilityError) as caught:
        ask(registry, registry.get("mixer", "vendor.toy.a"), Cost, cost)
    assert "vendor.toy.a" in str(caught.value) and "toy-words" in str(caught.value)


def test_a_third_partys_block_bears_the_name_of_its_type() -> None:
    other = primitive("vendor.acme.other", schema={"type": "object"}, block="other")
    registry = Registry([source("acme", plugin(eulerstack_mixers=[other]))])
    assert record_of(registry, "acme").state == "broken"
    assert "other" in record_of(registry, "acme").error.render()
