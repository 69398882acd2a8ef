"""The hook for pre-commit is what its tool expects, and its command does what the page says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {"id", "name", "entry", "language"}


def test_the_hook_checks_the_files_that_the_page_names(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert set(hook) >= NEEDED and f"- id: {hook['id']}" in (ROOT / "docs" / "editors.md").read_text(encoding="utf-8")
    for name, taken in (("a.eulerstack.yml", True), ("b/a.spec.yaml", True), ("mkdocs.yml", False)):
        assert bool(re.search(hook["files"], name)) is taken
    good = ROOT / "presets" / "eulerstack_presets" / "llm_0p1b_simple.yml"
    bad = tmp_path / "bad.spec.yml"
    bad.write_text(good.read_text(encoding="utf-8").replace("d_model", "d_modell"), encoding="utf-8")
    program, *words = shlex.split(hook["entry"])
    assert program == "eulerstack"
    run = [sys.executable, "-c", "import sys; from eulerstack.cli import main; sys.exit(main())", *words]
    assert subprocess.run([*run, good, good], capture_output=True).returncode == 0
    done = subprocess.run([*run, good, bad], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 3 and str(bad) in done.stderr
