"""The commands of docs/writing-a-plugin.md as a reader types them: from `plugins new` to generated tokens.

    python scripts/check_plugin_walkthrough.py PYTHON WORK_DIRECTORY [WHEELS]

PYTHON belongs to an environment where the wheels of eulerstack are installed; WHEELS is the folder with these, so that
no index is asked for a name of ours. Then a package of every other kind is written, installed and tested there too; in
the end all of them are uninstalled.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "writing-a-plugin.md"
MARK = "<!-- commands: scripts/check_plugin_walkthrough.py -->"
OTHERS = ("ffn", "integrator", "memory", "residual", "namespace")


def commands() -> str:
    """The page's shell commands."""
    block = re.search(rf"{re.escape(MARK)}\n```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if block is None:
        raise SystemExit(f"{PAGE} shows no commands after {MARK}")
    return block[1]


def shell(script: str, folder: Path, environment: dict[str, str]) -> str:
    """Runs a script, each line shown before it; ends this program when one fails. Gives what it printed."""
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nfailed with status {done.returncode}")
    return done.stdout


def main(python: Path, folder: Path, wheels: Path | None) -> None:
    """The page's commands, then the other kinds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "EULERSTACK_LANG": "en",
    }
    if wheels is not None:
        environment["PIP_FIND_LINKS"] = str(wheels)
    page = commands()
    seen = shell(page, folder, environment)
    for expected in ("18 of 18 claims hold", "vendor.acme.gated_average", "generated_text"):
        if expected not in seen:
            raise SystemExit(f"{seen}\nthe commands of {PAGE.name} did not show {expected!r}")
    others = [f"eulerstack-acme-my-{kind}" for kind in OTHERS]
    written = "".join(f"eulerstack plugins new acme.my_{kind} --kind {kind}\n" for kind in OTHERS)
    installed = " ".join(f"-e './{package}[test]'" for package in others)
    shell(f"{written}python -m pip install --quiet {installed}\n", folder, environment)
    with ThreadPoolExecutor(max_workers=2) as workers:
        list(workers.map(lambda package: shell("python -m pytest -q\n", folder / package, environment), others))
    shell("eulerstack plugins doctor\n", folder, environment)
    written_packages = " ".join(["eulerstack-acme-gated-average", *others])
    shell(f"python -m pip uninstall --quiet --yes {written_packages}\n", folder, environment)
    shutil.rmtree(folder)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    # The link that a virtual environment's python is says where its packages are, so it is not followed.
    wheels = Path(sys.argv[3]).resolve() if sys.argv[3:] else None
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).resolve(), wheels)
