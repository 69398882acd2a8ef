"""Strangers' packages as a user meets them: built, installed beside ours, used; then what they exported, alone.

    python scripts/check_vendor_wheels.py WORK_DIRECTORY

Goes on in the directory that `check_wheels.py --keep` left: its wheels of ours, its clean environment, from which ours
are uninstalled, and the one where they never were.

1. Builds a wheel of each package of tests/vendor_packages, in isolation, and installs them with ours.
2. Every one works, the preset is listed, the rule fires in five languages with its package named.
3. Compiles the preset, which says a word of each package, and explains it: prices are those of the model.
4. Generates from the directory after uninstalling ours and theirs, and in the environment that never had them, on the
   oldest transformers; the tokens must be the same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = sorted((ROOT / "tests" / "vendor_packages").glob("*/pyproject.toml"))
GENERATE = ROOT / "scripts" / "generate_without_eulerstack.py"
PRESET = "robin-aviary"
SENTENCES = {
    "ko": "aviary이라는 이름은",
    "en": "the name aviary says little",
    "zh": "名称 aviary",
    "ja": "aviary という名前",
    "es": "el nombre aviary",
}
started = time.monotonic()


def say(text: str) -> None:
    """A line with the seconds so far."""
    print(f"[{time.monotonic() - started:4.0f} s] {text}", flush=True)


def run(*command: str | Path) -> str:
    """Runs a command outside the checkout's import path; ends this program when it fails. Gives its stdout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=work, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failed with status {done.returncode}: {' '.join(words)}\n{done.stdout}")
    return done.stdout


def expect(found: bool, what: str) -> None:
    """Ends this program unless what it expects is found."""
    if not found:
        raise SystemExit(f"not so: {what}")


def tokens(python: Path, export: Path) -> list[int]:
    """What the exported directory generates in an environment."""
    results = json.loads(run(python, "-I", GENERATE, export, "--json").splitlines()[-1])
    return next(iter(results.values()))["tokens"]


def main() -> None:
    """All four steps."""
    clean, never = (work / name / ("Scripts" if os.name == "nt" else "bin") for name in ("clean", "never"))
    names = [tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"] for file in PROJECTS]
    theirs = work / "theirs"
    for file in PROJECTS:
        run(sys.executable, "-m", "build", "--wheel", "--outdir", theirs, file.parent)
    wheels = sorted(theirs.glob("*.whl"))
    expect(len(wheels) == len(names), f"a wheel of each of {', '.join(names)}")
    say(f"built {', '.join(wheel.name for wheel in wheels)}")
    # What ours need is still there.
    ours = sorted((work / "dist").glob("*.whl"))
    run(clean / "python", "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", *ours, *wheels)
    run(clean / "python", "-m", "pip", "check")
    say("installed them beside ours")

    eulerstack = clean / "eulerstack"
    listed = json.loads(run(eulerstack, "--lang", "en", "plugins", "list", "--json"))
    states = {each["package"]: each["state"] for each in (listed["plugins"] if isinstance(listed, dict) else listed)}
    expect(all(states.get(name) == "ok" for name in names), f"each of {', '.join(names)} is ok: {states}")
    expect(PRESET in run(eulerstack, "presets", "list"), f"{PRESET} is listed")
    for language, sentence in SENTENCES.items():
        printed = " ".join(run(eulerstack, "--lang", language, "validate", "--preset", PRESET, "--report").split())
        expect("[finch_name, finch-rule 0.3.0]" in printed, f"the rule's package is named: {printed}")
        expect(sentence in printed, f"the rule speaks {language}: {printed}")
    say("each works, the preset is listed, the rule speaks five languages")

    export = work / "exports" / PRESET
    run(eulerstack, "compile", "--preset", PRESET, "--output-dir", export, "--seed", "0")
    explained = json.loads(run(eulerstack, "explain", "--preset", PRESET, "--json"))
    stored = json.loads(
        run(clean / "python", "-c", "import json, sys; from safetensors.torch import load_file; "
            "print(json.dumps(sum(each.numel() for each in load_file(sys.argv[1]).values())))",
            export / "model.safetensors")
    )  # fmt: skip
    expect(explained["params"]["total"] == stored, f"explain's {explained['params']['total']} are {stored}")
    expect(len(explained["replaced_linears"]) > 0, "explain tells what the namespace has replaced")
    say(f"compiled {PRESET}, {stored} parameters as explained")

    installed = [wheel.name.split("-")[0] for wheel in (*ours, *wheels)]
    run(clean / "python", "-m", "pip", "uninstall", "--quiet", "--yes", *installed)
    newest, oldest = tokens(clean / "python", export), tokens(never / "python", export)
    expect(newest == oldest, f"the tokens are the same: {newest}, {oldest}")
    say("generated the same tokens without any of these packages, and where none ever was")
    shutil.rmtree(work)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    work = Path(sys.argv[1]).resolve()
    main()
