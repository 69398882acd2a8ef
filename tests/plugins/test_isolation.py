"""Whatever a plugin does while it is loaded or asked, it is that plugin that is set aside and named; all else works."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from eulerstack.cli import main
from eulerstack.errors import CompatibilityError, Finding, Message
from eulerstack.plugins import Cost, Primitive, Problem, Rule
from eulerstack.plugins import manager as manager_module
from eulerstack.plugins.contributions import KIND_OF_HOOK
from eulerstack.plugins.field_types import conforms
from eulerstack.plugins.manager import PluginSource, Registry, get_registry, installed_sources, reset_registry
from eulerstack.plugins.time_limit import TookTooLong, at_most
from eulerstack.schema.assemble import assemble
from tests.plugins.test_hookspecs import EXAMPLES
from tests.plugins.test_registry import FAULTS, GOOD, plugin, primitive, record_of, source, states

NONSENSE: tuple[Any, ...] = (
    None, True, 7, -1.5, float("nan"), "", "text\x1b[31m", b"bytes", [], ["x"], {}, {3: 4}, {"type": 3}, (), (None,),
    object(), int, lambda: 1,
)  # fmt: skip


class Evil:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")


class Unspeakable(Exception):
    """An exception that can't be said."""

    def __str__(self) -> str:
        raise RuntimeError("str")


def endless() -> Iterator[Primitive]:
    for number in itertools.count():
        yield primitive(f"vendor.acme.x{number}")


WORSE = {
    **{f"a plugin that is {value!r:.20}": value for value in NONSENSE if not callable(value) and value is not None},
    "none": None,
    "a class": Evil,
    "an object that raises": Evil(),
    "an error that can't be said": Unspeakable(),
    "a hook that returns what can't be said": plugin(eulerstack_mixers=Evil()),
    "items that can't be said": plugin(eulerstack_mixers=[Evil()]),
    "items without end": plugin(eulerstack_mixers=endless),
    "a schema that contains itself": plugin(eulerstack_mixers=[]),
    "a reference into another schema": plugin(
        eulerstack_mixers=[primitive("vendor.acme.x", schema={"properties": {"a": {"$ref": "#/x"}}})]
    ),
    "a schema with a function": plugin(
        eulerstack_mixers=[primitive("vendor.acme.x", schema={"properties": {"a": {"description": len}}})]
    ),
    "a default that its schema forbids": plugin(
        eulerstack_mixers=[
            primitive("vendor.acme.x", schema={"properties": {"a": {"type": "integer", "default": "x"}}})
        ]
    ),
    "a block that is a list": plugin(eulerstack_mixers=[primitive("vendor.acme.x", schema={"type": "array"})]),
}
_circle: dict[str, Any] = {"type": "object", "properties": {}}
_circle["properties"]["again"] = _circle
WORSE["a schema that contains itself"] = plugin(eulerstack_mixers=[primitive("vendor.acme.x", schema=_circle)])


@pytest.mark.parametrize("name", WORSE)
def test_nonsense_instead_of_a_plugin_is_set_aside(name: str) -> None:
    registry = Registry([source("aaa-faulty", WORSE[name]), GOOD])
    record = record_of(registry, "aaa-faulty")
    assert record.state == "broken" and record.error.render() and "Traceback" in record.traceback
    assert registry.names("mixer") == ["vendor.acme.good"]


@pytest.mark.parametrize("hook", ["eulerstack_mixers", *(hook for hook in EXAMPLES if hook not in KIND_OF_HOOK)])
def test_nonsense_in_any_field_of_any_declaration_is_set_aside_or_harmless(hook: str) -> None:
    example = EXAMPLES[hook]
    for field in fields(example):
        for value in NONSENSE:
            wrong = replace(example, **{field.name: value})
            registry = Registry([source("aaa-faulty", plugin(**{hook: [wrong]})), GOOD])
            (record,) = [each for each in registry.records() if each.package == "aaa-faulty"]
            assert registry.names("mixer")[-1:] == ["vendor.acme.good"] or hook == "eulerstack_mixers"
            if record.state == "broken":
                assert record.error is not None and record.error.render()
            else:
                # What may stand there must not harm the language that everybody shares.
                assert record.state == "ok", (field.name, value)
                json.dumps(assemble(registry), allow_nan=False)


def test_our_own_declarations_keep_what_is_asked_of_strangers() -> None:
    from eulerstack.plugins.third_party import _schemas, check_schema

    for _, _, contribution in get_registry()._loaded:
        for name, schema in _schemas(contribution):
            check_schema(name, schema)


def test_no_shuffle_of_the_installation_changes_what_becomes_of_anyone() -> None:
    sources = [
        *(source(f"bad-{number}", fault, str(number)) for number, fault in enumerate(FAULTS.values())),
        source("eulerstack-mixers", plugin(eulerstack_mixers=[primitive("attention")])),
        source("zeta", plugin(eulerstack_mixers=[primitive("vendor.shared.x")])),
        source("alpha", plugin(eulerstack_mixers=[primitive("vendor.shared.x")])),
        GOOD,
    ]
    shuffler, first = random.Random(0), Registry(sources)
    for _ in range(20):
        shuffler.shuffle(sources)
        registry = Registry(sources)
        assert states(registry) == states(first) and registry.names("mixer") == first.names("mixer")
        assert [record.package for record in registry.records()] == [record.package for record in first.records()]


def spin() -> object:
    while True:
        pass


def sleep_and_swallow() -> object:
    """Sleeps for ever, and takes no hint."""
    while True:
        try:
            time.sleep(60)
        except BaseException:
            time.sleep(60)


HANGS = {
    "spins while it is imported": PluginSource("words", "slow", "2.0", spin),
    "swallows the first alarm": PluginSource("words", "slow", "2.0", sleep_and_swallow),
    "waits for a lock": PluginSource("words", "slow", "2.0", lambda: threading.Event().wait() or object()),
    "spins in a hook": source("slow", plugin(eulerstack_mixers=spin)),
}


@pytest.mark.parametrize("name", HANGS)
def test_a_plugin_that_hangs_is_set_aside_when_its_time_is_over(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EULERSTACK_PLUGIN_SECONDS", "0.05")
    monkeypatch.setattr("eulerstack.plugins.time_limit.REPEAT_SECONDS", 0.05)
    registry = Registry([HANGS[name], GOOD])
    record = record_of(registry, "slow")
    assert record.state == "broken" and "0.05 seconds" in record.error.render(str)
    assert "Traceback" in record.traceback and "in " in record.traceback
    assert registry.names("mixer") == ["vendor.acme.good"]


def test_importers_that_hang_cost_the_plugin_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EULERSTACK_PLUGIN_SECONDS", "0.05")
    module = plugin(eulerstack_mixers=[primitive("vendor.slow.x")], eulerstack_importers=spin)
    registry = Registry([source("slow", module), GOOD])
    assert registry.importers() == [] and record_of(registry, "slow").state == "broken"
    assert registry.names("mixer") == ["vendor.acme.good", "vendor.slow.x"]


def test_an_alarm_that_somebody_else_set_rings_all_the_same() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(TookTooLong), at_most(0.02):
            spin()
        deadline = time.monotonic() + 5
        while not rung and time.monotonic() < deadline:
            time.sleep(0.01)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_in_another_thread_plugins_are_loaded_without_a_limit() -> None:
    found: list[Registry] = []
    thread = threading.Thread(target=lambda: found.append(Registry([GOOD])))
    thread.start()
    thread.join()
    assert found[0].names("mixer") == ["vendor.acme.good"]


def test_metadata_that_hangs_hides_no_other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eulerstack.plugins import sources

    info = tmp_path / "stuck-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stuck\nVersion: 1.0\n", encoding="utf-8")
    whole = {each.identity for each in installed_sources()}
    # A pipe that nobody writes to is never at its end.
    os.mkfifo(info / "entry_points.txt")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sources, "METADATA_SECONDS", 0.5)
    assert {each.identity for each in installed_sources()} == whole
    assert any("stuck" in str(place) for place, _ in sources.unreadable())


SPEC = """\
schema_version: 1
model: {{ name: tiny, d_model: 32, vocab_size: 64, max_seq_len: 32, n_heads: 4 }}
tokenizer_contract: {{ type: hf }}
embedding: {{ type: learned, positional: none }}
layer_templates: {{ a: {{ mixer: {{ type: {name}, {name}: {{}} }}, ffn: {{ type: mlp }} }} }}
layer_schedule: [{{ template: a }}]
head: {{ type: causal_lm }}
"""


@pytest.fixture
def with_plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Installs a plugin beside ours, as the package late-words."""

    def install(module: Any) -> None:
        ours = [each for each in installed_sources() if each.own]
        reset_registry(Registry([*ours, PluginSource("words", "late-words", "2.0", lambda: module)]))

    yield install
    reset_registry()


def raising(error: BaseException) -> Any:
    def function(*arguments: Any) -> Any:
        raise error

    return function


LATE: dict[str, Any] = {
    function: {function: raising(error)}
    for function, error in {
        "cost": ZeroDivisionError("no"),
        "resolve": SystemExit(0),
        "checks": Unspeakable(),
        "features": KeyError("x"),
        "cache": RecursionError(),
        "routed_units": SystemExit("bye"),
        "config_fields": ValueError("y"),
        "implementations": OSError("z"),
        "tensor_parallel": RuntimeError("w"),
    }.items()
} | {
    "a price in words": {"cost": lambda *asked: Cost(params="many")},
    "a price that is none": {"cost": lambda *asked: 7},
    "a problem that is none": {"checks": lambda *asked: ["wrong"]},
    "parameters that are none": {"resolve": lambda *asked: 7},
    "a slot that is none": {"cache": lambda *asked: "full"},
    "a class path that is none": {"implementations": lambda *asked: 7},
}


@pytest.mark.parametrize("case", LATE)
def test_code_that_fails_later_names_its_plugin_and_harms_no_other_spec(
    case: str, with_plugin: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_plugin(plugin(eulerstack_mixers=[primitive("vendor.late.x", schema={"type": "object"}, **LATE[case])]))
    specs = {}
    for name in ("vendor.late.x", "attention"):
        specs[name] = tmp_path / f"{name}.yml"
        specs[name].write_text(SPEC.format(name=name), encoding="utf-8")
    failed = []
    for command in (["explain"], ["compile", "--print-config"]):
        code = main(["--lang", "en", *command, "--preset", str(specs["vendor.late.x"])])
        captured = capsys.readouterr()
        if code:
            failed.append(command)
            assert captured.out == "" and "vendor.late.x from late-words 2.0 failed" in captured.err, captured.err
    assert failed, "nobody asked"
    if isinstance(LATE[case].get(case), types.FunctionType):
        assert "Traceback" in record_of(get_registry(), "late-words").traceback
    assert main(["--lang", "en", "explain", "--preset", str(specs["attention"])]) == 0


@pytest.mark.parametrize("answer", [SystemExit(0), Unspeakable(), None, [3]])
def test_a_rule_that_fails_is_a_finding_that_names_its_plugin(
    answer: Any, with_plugin: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = raising(answer) if isinstance(answer, BaseException) else lambda ir: answer
    with_plugin(plugin(eulerstack_rules=[Rule("late_rule", "a rule", check)]))
    (tmp_path / "a.yml").write_text(SPEC.format(name="attention"), encoding="utf-8")
    assert main(["--lang", "en", "validate", "--report", "--preset", str(tmp_path / "a.yml")]) == 0
    assert "the rule from late-words 2.0 failed" in " ".join(capsys.readouterr().out.split())


def test_a_sentence_of_a_plugin_that_can_not_be_filled_is_shown_as_it_is(
    with_plugin: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Problem(
        "", Message("no {such} {0}", (("other", 1),), "late"), Message("turn {x", (("x", 1),), "late"), "a"
    )
    finding = Finding("late_rule", Message("{a.b}", (("a", 1),), "late"))
    with_plugin(
        plugin(
            eulerstack_mixers=[primitive("vendor.late.x", schema={"type": "object"}, checks=lambda *asked: [problem])],
            eulerstack_rules=[Rule("late_rule", "a rule", lambda ir: [finding])],
        )
    )
    for name, shown in (("vendor.late.x", "no {such} {0}"), ("attention", "{a.b}")):
        (tmp_path / "a.yml").write_text(SPEC.format(name=name), encoding="utf-8")
        main(["--lang", "en", "validate", "--report", "--preset", str(tmp_path / "a.yml")])
        assert shown in "".join(capsys.readouterr())


def test_conforming_is_what_annotations_say() -> None:
    assert conforms(None, Any) and conforms((1, "a"), tuple[int, str]) and conforms({"a": 3}, dict[str, Any])
    assert not conforms(True, int) and not conforms([1], tuple[int, ...]) and not conforms({3: 1}, dict[str, int])
    assert conforms(("a", "b"), tuple[str, ...]) and not conforms(("a", 1), tuple[str, ...])


def test_annotations_that_only_strangers_use_are_no_fault() -> None:
    assert conforms([1], list[int]) and not conforms((1,), list[int]) and not conforms(1, type[int])
    assert conforms({"a": 1}, typing.Mapping) and not conforms(["a"], typing.Mapping)
    assert conforms(1, typing.TypeVar("T")) and conforms(1, typing.NewType("N", int))


def test_no_plugins_means_no_third_partys(
    with_plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = [each for each in installed_sources() if each.own]
    loud = PluginSource("words", "loud", "1", raising(AssertionError("it is not even imported")))
    monkeypatch.setattr(manager_module, "installed_sources", lambda: [*ours, loud])
    monkeypatch.setenv("EULERSTACK_DISABLE_PLUGINS", "nobody")
    reset_registry()
    assert main(["--no-plugins", "--lang", "en", "plugins", "list", "--json"]) == 0
    captured = capsys.readouterr()
    (found,) = [each for each in json.loads(captured.out) if each["package"] == "loud"]
    assert found["state"] == "disabled" and "--no-plugins" in found["error"]
    assert "nobody" in captured.err and "*" not in captured.err
    (tmp_path / "a.yml").write_text(SPEC.format(name="attention"), encoding="utf-8")
    assert main(["--lang=en", "--no-plugins", "validate", "--preset", str(tmp_path / "a.yml")]) == 0
    assert os.environ["EULERSTACK_DISABLE_PLUGINS"] == "nobody"
    assert main(["plugins", "list", "--no-plugins"]) == 2
    assert "eulerstack --no-plugins plugins list" in capsys.readouterr().err


@pytest.mark.parametrize(
    "entry, home", [("late_words", "toy"), ("late_entry", "late_words"), ("late_entry", "late_words.of")]
)
def test_what_a_plugin_raises_where_nobody_expects_it_names_the_plugin(
    entry: str,
    home: str,
    with_plugin: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Code that lies where the entry point does, as an installed one's does, or where the class is said to be.
    module = types.ModuleType("late_words")
    exec("import sys\ndef fail(*asked):\n    sys.exit(0)", module.__dict__)
    monkeypatch.setitem(sys.modules, "late_words", module)
    mixer = replace(primitive("vendor.late.x", schema={"type": "object"}), module=f"{home}:Late")
    words = plugin(eulerstack_mixers=[mixer])
    ours = [each for each in installed_sources() if each.own]
    reset_registry(Registry([*ours, PluginSource("words", "late-words", "2.0", lambda: words, entry)]))
    monkeypatch.setattr("eulerstack.compiler.cost.model_cost", module.fail)
    monkeypatch.setattr("eulerstack.cli.describe.describe", module.fail)
    (tmp_path / "a.yml").write_text(SPEC.format(name="attention"), encoding="utf-8")
    assert main(["--lang", "en", "explain", "--json", "--preset", str(tmp_path / "a.yml")]) == 1
    assert "the plugin words of late-words 2.0 failed: SystemExit: 0" in capsys.readouterr().err


def test_strict_mode_refuses_what_is_set_aside_later_too(with_plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_plugin(plugin(eulerstack_mixers=[primitive("vendor.late.x")], eulerstack_importers=raising(OSError("disk"))))
    monkeypatch.setenv("EULERSTACK_STRICT_PLUGINS", "1")
    registry = get_registry()
    registry.importers()
    with pytest.raises(CompatibilityError, match="late-words"):
        get_registry()


def test_the_word_of_a_plugin_that_was_set_aside_is_looked_up_there_and_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = [each for each in installed_sources() if each.own]
    near = source("late-near", plugin(eulerstack_mixers=[primitive("vendor.near.good")]))
    reset_registry(Registry([*ours, near, source("late-dear", plugin(EULERSTACK_API_VERSION=7), "dear")]))
    fixes = {}
    for name in ("vendor.dear.good", "vendor.near.god"):
        (tmp_path / "a.yml").write_text(SPEC.format(name=name), encoding="utf-8")
        assert main(["--lang", "en", "validate", "--preset", str(tmp_path / "a.yml")]) == 1
        fixes[name] = capsys.readouterr().err.splitlines()[1]
    reset_registry()
    assert fixes == {
        "vendor.dear.good": "Fix: eulerstack plugins doctor",
        "vendor.near.god": "Fix: Type type: vendor.near.good",
    }
