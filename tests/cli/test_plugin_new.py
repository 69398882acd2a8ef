"""`plugins new` writes whole packages, and never over anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eulerstack.plugins.manager import reset_registry
from eulerstack.scaffold import KINDS, parsed
from tests.cli.conftest import Run


def install_new(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of every kind, written and as if installed; gives the folder of the packages."""
    site = tmp_path / "site"
    site.mkdir()
    for kind in KINDS:
        assert run("plugins", "new", f"acme.own_{kind}", "--kind", kind).code == 0
        names = parsed(f"acme.own_{kind}")
        info = site / f"{names.package}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {names.distribution}\nVersion: 0.1.0\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(f"[eulerstack]\nx = {names.package}.plugin\n", encoding="utf-8")
        (site / names.package).symlink_to(tmp_path / names.distribution / "src" / names.package)
    monkeypatch.syspath_prepend(str(site))
    reset_registry()
    return tmp_path


@pytest.mark.torch
def test_what_is_written_works_as_it_is(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install_new(run, tmp_path, monkeypatch)
    try:
        outcome = run("plugins", "doctor")
        assert outcome.code == 0, outcome.out
        for kind in KINDS:
            package = parsed(f"acme.own_{kind}")
            assert run("validate", "--preset", package.preset).code == 0
            assert package.preset in run("plugins", "show", package.full).out
            for path in (folder / package.distribution).rglob("*"):
                text = path.read_text(encoding="utf-8") if path.is_file() and path.suffix != ".pyc" else ""
                assert "sample" not in text.lower() and "{description}" not in text, path
    finally:
        reset_registry()
        for module in [name for name in sys.modules if name.startswith("eulerstack_acme_own")]:
            del sys.modules[module]


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not installed")
@pytest.mark.parametrize("name", ["a.b", "acme.gated_average", "a_vendor_of_20_xyzab.a_word_of_20_letters"])
def test_what_is_written_is_clean(run: Run, tmp_path: Path, name: str) -> None:
    for kind in KINDS:
        assert run("plugins", "new", name, "--kind", kind, "--output-dir", tmp_path / kind).code == 0
    checked = subprocess.run(["ruff", "check", tmp_path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_nothing_is_ever_overwritten(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "eulerstack-acme-x"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    outcome = run("plugins", "new", "acme.x", "--kind", "ffn")
    assert outcome.code == 1 and "not empty" in outcome.err and "--output-dir" in outcome.err
    assert os.listdir(folder) == ["mine.txt"]
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert run("plugins", "new", "acme.x", "--kind", "ffn", "--output-dir", "file").code == 1
    assert run("plugins", "new", "acme.x", "--kind", "ffn", "--output-dir", ".").code == 1
    assert sorted(os.listdir(tmp_path)) == ["eulerstack-acme-x", "file"]


@pytest.mark.parametrize(
    "name", ["", ".", "Acme.x", "acme.x.y", "acme.", "acme.class", "acme.9", "acme.x-y", "../x", "ttt", "eulerstack.x",
             "acme." + 21 * "x", "acme.é"],
)  # fmt: skip
def test_a_name_that_can_be_no_packages_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    outcome = run("plugins", "new", name, "--kind", "ffn")
    assert (outcome.code, outcome.err.count("\n")) == (1, 3) and os.listdir(tmp_path) == []


def test_a_kind_that_there_is_not_is_met_with_the_nearest(run: Run) -> None:
    outcome = run("plugins", "new", "acme.x", "--kind", "mixr")
    assert outcome.code == 2 and "Fix: use one of: mixer, " in outcome.err
    assert run("plugins", "new", "--kind", "ffn").code == 2 and run("plugins", "new", "acme.x").code == 2


def test_one_part_of_a_name_serves_as_both() -> None:
    names = parsed("gla")
    assert (names.full, names.distribution, names.preset) == ("vendor.gla.gla", "eulerstack-gla", "gla")
    assert parsed("vendor.acme.gla") == parsed("acme.gla")
