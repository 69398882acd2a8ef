"""The wheels as a user meets them: built, installed, used; then what they exported, without them.

    python scripts/check_wheels.py WORK_DIRECTORY [--keep]

1. Builds the wheels, each in isolation.
2. Installs them into a clean environment, by file, so that no index is asked for a name of ours; runs the quickstart,
   and check_plugin_walkthrough.py.
3. Compiles the specs of tests/packaging/specs there, and the one that README.md shows.
4. Generates from every directory in that environment after *uninstalling* ours, and in another one that never had
   them, on the oldest transformers; the tokens must be the same.

With --keep the directory stays, wheels and environments in it, for scripts that go on there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = (
    ".",
    "eulerstack-core",
    "eulerstack-mixers",
    "eulerstack-plugins/ode",
    "eulerstack-plugins/tensor",
    "eulerstack-plugins/titans",
    "eulerstack-plugins/ttt",
)
NAMES = (
    "eulerstack",
    "eulerstack-core",
    "eulerstack-mixers",
    "eulerstack-ode",
    "eulerstack-tensor",
    "eulerstack-titans",
    "eulerstack-ttt",
)
GENERATE = ROOT / "scripts" / "generate_without_eulerstack.py"
started = time.monotonic()


def say(text: str) -> None:
    """A line with the seconds so far."""
    print(f"[{time.monotonic() - started:4.0f} s] {text}", flush=True)


def run(*command: str | Path, constraints: str = "constraints.txt", capture: bool = False) -> str:
    """Runs a command outside the checkout's import path; ends this program when it fails. Gives its stdout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PIP_CONSTRAINT"] = str(ROOT / constraints)
    done = subprocess.run(
        [str(word) for word in command],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"failed with status {done.returncode}: {' '.join(map(str, command))}\n{done.stdout or ''}")
    return done.stdout or ""


def environment(name: str) -> Path:
    """Makes a clean environment; gives the folder of its commands."""
    venv.create(work / name, clear=True, with_pip=True)
    return work / name / ("Scripts" if os.name == "nt" else "bin")


def build_wheels() -> list[Path]:
    """The wheel of each project."""
    for project in PROJECTS:
        run(sys.executable, "-m", "build", "--wheel", "--outdir", work / "dist", ROOT / project, capture=True)
    wheels = sorted((work / "dist").glob("*.whl"))
    say(f"built {', '.join(wheel.name for wheel in wheels)}")
    return wheels


def readme_spec() -> Path:
    """The complete spec that README.md shows, as a file."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    path = work / "specs" / "readme.yml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", text, re.S)[0], encoding="utf-8")
    return path


def tokens(python: Path, exports: list[Path]) -> dict[str, list[int]]:
    """What each exported directory generates in an environment."""
    results = json.loads(run(python, "-I", GENERATE, *exports, "--json", capture=True).splitlines()[-1])
    return {name: result["tokens"] for name, result in results.items()}


def main() -> None:
    """All four steps."""
    wheels = build_wheels()

    clean = environment("clean")
    run(clean / "python", "-m", "pip", "install", "--quiet", "--no-compile", *wheels)
    run(clean / "python", "-m", "pip", "check", capture=True)
    say("installed the wheels into a clean environment")
    run(clean / "python", ROOT / "scripts" / "quickstart.py", "--output-dir", work / "exports" / "quickstart")

    walk = ROOT / "scripts" / "check_plugin_walkthrough.py"
    run(clean / "python", walk, clean / "python", work / "walkthrough", work / "dist", capture=True)
    say("wrote a plugin of each kind, installed and tested it, compiled one and generated from it")

    shutil.copytree(ROOT / "tests" / "packaging" / "specs", work / "specs")
    readme_spec()
    for spec in sorted((work / "specs").glob("*.yml")):
        export = work / "exports" / spec.stem
        run(clean / "eulerstack", "compile", "--preset", spec, "--output-dir", export, capture=True)
    exports = sorted((work / "exports").iterdir())
    say(f"compiled {', '.join(export.name for export in exports)}")

    run(clean / "python", "-m", "pip", "uninstall", "--quiet", "--yes", *NAMES)
    newest = tokens(clean / "python", exports)
    say("generated from each after uninstalling eulerstack")

    never = environment("never")
    run(
        never / "python", "-m", "pip", "install", "--quiet", "--no-compile", "torch", "transformers", "torchdiffeq",
        constraints="constraints-oldest.txt",
    )  # fmt: skip
    oldest = tokens(never / "python", exports)
    say("generated from each on the oldest transformers, where eulerstack never was")

    different = [name for name in newest if newest[name] != oldest[name]]
    if different:
        raise SystemExit(f"other tokens on the oldest transformers: {', '.join(different)}")
    say("the tokens are the same")
    if "--keep" not in sys.argv:
        shutil.rmtree(work)


if __name__ == "__main__":
    if len(sys.argv) != 2 + ("--keep" in sys.argv[2:]):
        raise SystemExit(__doc__)
    work = Path(sys.argv[1]).resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    main()
