"""`plugins doctor` survives everything, names whoever is at fault, and says what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eulerstack.cli.terminal import cells
from eulerstack.i18n import LANGUAGES
from eulerstack.plugins.manager import reset_registry
from tests.cli.conftest import Run

WORKING = """
from eulerstack.plugins import CacheLayer, Cost, Primitive, hookimpl

def cost(dims, params, element_bytes):
    {cost}

@hookimpl
def eulerstack_mixers():
    return [Primitive("vendor.{name}.x", "mixer", "x", "{module}:X", cost=cost, paper="arXiv:1",
                      cache=lambda params: CacheLayer("eulerstack_state"))]
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes a package with one plugin module look installed."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(name: str, source: str, group: str = "eulerstack", metadata: str = "") -> None:
        (site / f"{name}_words.py").write_text(source + "\nclass X: pass\n", encoding="utf-8")
        info = site / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n{metadata}", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(f"[{group}]\nwords = {name}_words\n", encoding="utf-8")
        reset_registry()

    yield install
    reset_registry()
    for module in [name for name in sys.modules if name.endswith("_words")]:
        del sys.modules[module]


def working(name: str, cost: str = "return Cost(params=1)", module: str | None = None) -> str:
    return WORKING.format(name=name, cost=cost, module=module or f"{name}_words")


def plugins_of(out: str) -> dict[str, Any]:
    return {each["package"]: each for each in json.loads(out)["plugins"]}


@pytest.mark.torch
def test_where_all_is_well_the_doctor_says_so(run: Run, install: Install) -> None:
    install("good", working("good"))
    outcome = run("plugins", "doctor")
    assert outcome.code == 0 and outcome.err == "" and "Everything works." in outcome.out
    assert "good:words" in outcome.out


DEADLY = {
    "exits": "import os; os._exit(7)",
    "crashes": "import ctypes; ctypes.string_at(0)",
    # Holds the interpreter's lock, so that no signal handler of Python's ever runs.
    "freezes": "import ctypes; ctypes.PyDLL(None).pause()",
    "sleeps": "import time\ndef nap():\n    time.sleep(60)\nnap()",
}


def test_plugins_that_hang_or_end_the_process_are_named_and_survived(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EULERSTACK_PLUGIN_SECONDS", "1")
    for name, source in DEADLY.items():
        install(name, source)
    install("good", working("good"))
    outcome = run("plugins", "doctor", "--json")
    assert outcome.code == 1
    found = plugins_of(outcome.out)
    what = {name: found[name]["problems"][0]["what"] for name in DEADLY}
    assert "status 7" in what["exits"] and "ended the process" in what["crashes"]
    assert "more than 1 seconds" in what["freezes"] and "more than 1 seconds" in what["sleeps"]
    assert "in nap" in found["sleeps"]["traceback"] and "freezes_words" in found["freezes"]["traceback"]
    assert found["good"]["state"] == "ok" and found["good"]["problems"] == []
    assert all(f"EULERSTACK_DISABLE_PLUGINS={name}:words" in found[name]["problems"][0]["fix"] for name in DEADLY)


def test_every_kind_of_trouble_is_named_with_what_to_do(run: Run, install: Install, tmp_path: Path) -> None:
    install("raises", "def deep():\n    raise ImportError('no triton here')\ndeep()")
    install("greedy", working("greedy").replace("vendor.greedy.x", "attention"))
    install("old", "EULERSTACK_API_VERSION = 0\n" + working("old"))
    install("pricey", working("pricey", cost="return dims.d_modell"))
    install("lost", working("lost", module="lost_words.modules"))
    install("needy", working("needy"), metadata="Requires-Dist: pluggy<0.5\nRequires-Dist: no-such-package>=2\n")
    install("aside", working("aside"), group="eulerstack_plugins")
    (tmp_path / "site" / "bare-1.dist-info").mkdir()
    (tmp_path / "site" / "bare-1.dist-info" / "entry_points.txt").write_text("[eulerstack]\nno\n", encoding="utf-8")
    outcome = run("plugins", "doctor", "--json")
    assert outcome.code == 1
    found = plugins_of(outcome.out)
    said = {name: " / ".join(each["what"] for each in plugin["problems"]) for name, plugin in found.items()}
    assert "no triton here" in said["raises"] and "in deep" in found["raises"]["traceback"]
    assert "attention" in said["greedy"] and "vendor.<name>" in said["greedy"]
    assert "API 0" in said["old"]
    assert "vendor.pricey.x" in said["pricey"] and "d_modell" in said["pricey"]
    assert "d_modell" in found["pricey"]["traceback"]
    assert "lost_words.modules:X, is not there" in said["lost"]
    assert "pluggy<0.5, but" in said["needy"] and "no-such-package>=2, which is not installed" in said["needy"]
    beside = {each["what"]: each["fix"] for each in json.loads(outcome.out)["problems"]}
    assert any("bare-1.dist-info" in what for what in beside)
    assert any("aside has an entry point in the group eulerstack_plugins" in what for what in beside)
    plain = run("plugins", "doctor").out
    assert "Traceback" not in plain and "--traceback shows" in plain
    assert "in deep" in run("plugins", "doctor", "--traceback").out


@pytest.mark.torch
def test_what_a_plugin_that_is_switched_off_lacks_is_a_remark_and_no_problem(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("needy", working("needy"), metadata="Requires-Dist: no-such-package>=2\n")
    assert run("plugins", "doctor").code == 1
    monkeypatch.setenv("EULERSTACK_DISABLE_PLUGINS", "needy")
    reset_registry()
    outcome = run("plugins", "doctor", "--json")
    needy = plugins_of(outcome.out)["needy"]
    assert outcome.code == 0 and needy["state"] == "disabled" and needy["problems"] == []
    assert any("no-such-package>=2" in note for note in needy["notes"])


def test_presets_that_nobody_can_reach_are_named(run: Run, install: Install, tmp_path: Path) -> None:
    hooks = (
        "from eulerstack.plugins import PresetFolder, hookimpl\n"
        "@hookimpl\ndef eulerstack_presets():\n    return [PresetFolder({!r})]"
    )
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "llm_0p1b_simple.yml").write_bytes(b"\xff\xfe")
    (tmp_path / "specs" / "strange.yml").write_bytes(b"\xff\xfe")
    install("hidden", hooks.format(str(tmp_path / "specs")))
    install("empty", hooks.format("/no/such/folder"))
    found = plugins_of(run("plugins", "doctor", "--json").out)
    (hidden,) = found["hidden"]["problems"]
    assert "its preset llm_0p1b_simple is hidden by" in hidden["what"]
    assert "/no/such/folder" in found["empty"]["problems"][0]["what"]
    # A preset that is no text harms no list.
    assert run("presets", "list").code == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_about_plugins_fits_80_columns(run: Run, install: Install, language: str) -> None:
    install("raises", "raise ImportError('no triton here, and a long story about why that is so, told twice over')")
    install("pricey", working("pricey", cost="return dims.d_modell"))
    for command in (["doctor"], ["show", "hyena"], ["show", "raises"]):
        out = run("plugins", *command, lang=language).out
        assert [line for line in out.splitlines() if cells(line) > 80] == [], command


def test_a_word_is_shown_with_all_that_is_known_of_it(run: Run, install: Install) -> None:
    install("good", working("good"))
    out = run("plugins", "show", "vendor.good.x").out
    assert "arXiv:1" in out and "good 1.2" in out
    (data,) = json.loads(run("plugins", "show", "retnet", "--json").out)
    assert data["summary"] and data["schema"]["properties"]["chunk_size"] and "arch_advanced_retnet" in data["presets"]
    assert data["cost"]["params"] == 8 * 1024**2 and data["cost"]["state_bytes_fixed"] == 16 * 64 * 128 * 4
    assert {each["kind"] for each in json.loads(run("plugins", "show", "none", "--json").out)} == {"ffn", "position"}
    (plugin,) = json.loads(run("plugins", "show", "good:words", "--json").out)
    assert plugin["provides"] == [{"kind": "mixer", "name": "vendor.good.x"}]


@pytest.mark.torch
def test_every_word_of_ours_can_be_shown_and_priced() -> None:
    from eulerstack.cli.plugin_show import _data_of_word
    from eulerstack.compiler.trial import tried
    from eulerstack.plugins.manager import get_registry

    registry = get_registry()
    for primitive in registry.primitives():
        trial = tried(primitive)
        assert trial.problems == () and (trial.cost is not None or primitive.kind == "linear"), primitive.name
    json.dumps(_data_of_word(registry.get("mixer", "attention"), registry))


@pytest.mark.torch
def test_strict_mode_hides_nothing_from_who_looks_for_the_reason(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("raises", "raise ImportError('no triton here')")
    install("good", working("good"))
    monkeypatch.setenv("EULERSTACK_STRICT_PLUGINS", "1")
    found = plugins_of(run("plugins", "doctor", "--json").out)
    assert [name for name, plugin in found.items() if plugin["problems"]] == ["raises"]
    assert run("plugins", "show", "retnet").code == 0 and run("plugins", "list").code == 0
    assert run("presets", "list").code == 1


def test_what_is_not_there_is_met_with_the_nearest_or_with_the_reason(run: Run, install: Install) -> None:
    assert "Fix: eulerstack plugins show retnet" in run("plugins", "show", "retne").err
    install("acme", "raise ImportError('no triton here')")
    outcome = run("plugins", "show", "vendor.acme.gla")
    assert outcome.code == 1 and "no triton here" in outcome.err and "plugins doctor" in outcome.err
    assert run("plugins", "show").code == 2


def test_looking_at_plugins_imports_no_torch(install: Install) -> None:
    import subprocess

    install("good", working("good"))
    code = (
        "import sys; from eulerstack.cli import main\n"
        "for command in (['list'], ['show', 'attention'], ['doctor']):\n"
        "    main(['plugins', *command])\n"
        "assert 'good_words' in sys.modules\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
