"""A compile that ends before its time leaves the whole directory or nothing, and the next one works.

A child process is killed, by SIGKILL, before every change that a compile makes in the file system, and at moments
between them. It is forked from a process that has imported everything already.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# Imported once here, and not by every child.
import eulerstack.compiler.writer
import eulerstack.hf.models  # noqa: F401
from eulerstack.cli import main

SPEC = """\
schema_version: 1
model: { name: tiny, d_model: 64, vocab_size: 4000, max_seq_len: 32, n_heads: 4, dtype: float32 }
tokenizer_contract: { type: hf }
embedding: { type: learned, positional: rope }
layer_templates: { block: { mixer: { type: attention, attention: {} }, ffn: { type: gated_mlp } } }
layer_schedule: [ { template: block, repeat: 3 } ]
head: { type: causal_lm }
"""
# What changes something in the file system, as Python's audit events name it; files that are opened come in too.
EVENTS = ("os.mkdir", "os.rename", "os.chmod", "os.rmdir", "os.remove", "shutil.copyfile", "shutil.rmtree")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(SPEC, encoding="utf-8")
    return path


@pytest.fixture
def reference(spec: Path, tmp_path: Path) -> dict[str, str]:
    """The checksums of what an undisturbed compile writes, by a child as the others are."""
    assert child(lambda: compile_to(spec, tmp_path / "reference")) == 0
    return checksums(tmp_path / "reference")


def compile_to(spec: Path, folder: Path, *options: str) -> int:
    return main(["--lang", "en", "compile", str(spec), "--output-dir", str(folder), *options])


def child(action: Callable[[], int], kill_after: float | None = None) -> int:
    """Runs `action` in a forked child; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        with open(os.devnull, "w") as silence:
            sys.stdout = sys.stderr = silence
            code = 70
            with contextlib.suppress(BaseException):
                code = action()
        os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def dying_at(call: int, folder: Path, action: Callable[[], int]) -> Callable[[], int]:
    """`action`, killed before its change number `call` to something in `folder`."""

    def act() -> int:
        count = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            writes = event in EVENTS or (event == "open" and str(arguments[1]) in ("w", "wb"))
            if writes and any(str(folder) in str(each) for each in arguments):
                count += 1
                if count == call:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        return action()

    return act


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_killed_at_any_call_it_leaves_all_or_nothing(spec: Path, tmp_path: Path, reference: dict[str, str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    calls = 0
    while True:
        calls += 1
        code = child(dying_at(calls, work, lambda: compile_to(spec, work / "out")))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert not (work / "out").exists() or checksums(work / "out") == reference
        shutil.rmtree(work / "out", ignore_errors=True)
    assert calls > 10, "there are at least the files themselves"
    assert [path.name for path in work.iterdir()] == ["out"], "what the killed ones left was taken away"
    assert checksums(work / "out") == reference


def test_killed_while_replacing_it_leaves_the_old_or_the_new(
    spec: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    work = tmp_path / "work"
    old = {"note.txt": hashlib.sha256(b"precious").hexdigest()}
    calls = 0
    seen = set()
    code = -signal.SIGKILL
    while code:
        calls += 1
        (work / "out").mkdir(parents=True, exist_ok=True)
        for path in (work / "out").iterdir():
            path.unlink()
        (work / "out" / "note.txt").write_bytes(b"precious")
        code = child(dying_at(calls, work, lambda: compile_to(spec, work / "out", "--force")))
        assert checksums(work / "out") in (old, reference)
        seen.add(len(checksums(work / "out")))
    assert seen == {1, len(reference)}
    assert [path.name for path in work.iterdir()] == ["out"]


def test_killed_at_any_moment_a_rerun_works(spec: Path, tmp_path: Path, reference: dict[str, str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    begin = time.monotonic()
    assert child(lambda: compile_to(spec, work / "out")) == 0
    whole = time.monotonic() - begin
    source = random.Random(0)
    for number in range(6):
        folder = work / f"out{number}"
        child(lambda to=folder: compile_to(spec, to), kill_after=source.uniform(0, whole))
        assert not folder.exists() or checksums(folder) == reference
        if not folder.exists():
            assert child(lambda to=folder: compile_to(spec, to)) == 0
        assert checksums(folder) == reference
    assert all(not path.name.startswith(".") for path in work.iterdir())


def test_a_living_compile_is_not_swept_away(spec: Path, tmp_path: Path, reference: dict[str, str]) -> None:
    from eulerstack.compiler.output import replacing_directory

    with pytest.raises(KeyboardInterrupt), replacing_directory(tmp_path / "out", False) as folder:
        assert child(lambda: compile_to(spec, tmp_path / "out")) == 0
        assert folder.is_dir() and checksums(tmp_path / "out") == reference
        raise KeyboardInterrupt
    assert checksums(tmp_path / "out") == reference


def test_an_interrupted_compile_takes_away_the_folders_it_made(tmp_path: Path) -> None:
    from eulerstack.compiler.output import replacing_directory

    with contextlib.suppress(KeyError), replacing_directory(tmp_path / "a" / "b" / "out", False):
        raise KeyError
    assert not (tmp_path / "a").exists()


# How a file system of 1 MB is mounted on "$1", in a namespace of its own that takes it down again: in memory, which
# anybody may, or a file on a loop device, as root.
SMALL = {
    "tmpfs": ("-rm", 'mount -t tmpfs -o size=1m tmpfs "$1"'),
    "loop": (
        "-m",
        'truncate -s 1M "$1.img" && mkfs.ext2 -qF "$1.img" && mount -o loop "$1.img" "$1" && rmdir "$1/lost+found"',
    ),
}
FULL = """\
{ %s; } && echo mounted || exit 99
"$2" -c 'import sys; from eulerstack.cli import main; sys.exit(main())' --lang en compile "$3" --output-dir "$1/out"
code=$?
ls -A "$1" | sed 's/^/left: /'
exit $code
"""


@pytest.mark.parametrize("kind", SMALL)
def test_a_full_disk_is_a_problem_of_three_lines_and_leaves_nothing(kind: str, spec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    namespace, mounting = SMALL[kind]
    command = ["unshare", namespace, "sh", "-c", FULL % mounting, "sh", str(folder), sys.executable, str(spec)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare on this machine")
    if "mounted" not in done.stdout:
        pytest.skip(f"this machine lets nobody mount a small file system: {done.stderr.strip()}")
    assert done.returncode == 1, "weights of 1.5 MB do not fit 1 MB"
    assert len(done.stderr.splitlines()) == 3 and "No space left on device" in done.stderr
    assert "left:" not in done.stdout


def test_a_reader_that_went_away_gets_a_whole_directory_or_none(
    spec: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    code = "import sys; from eulerstack.cli import main; sys.exit(main())"
    command = f'"{sys.executable}" -c "{code}" compile "{spec}" --output-dir "{tmp_path / "out"}" | true'
    subprocess.run(["bash", "-c", command], capture_output=True)
    assert not (tmp_path / "out").exists() or checksums(tmp_path / "out") == reference
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_threads_shards_and_machines_leave_the_weights_alone(spec: Path, tmp_path: Path) -> None:
    """The same bytes with one thread and with two; the same tensors in one file and in many."""
    from safetensors.torch import load_file

    code = "import sys, torch; torch.set_num_threads(int(sys.argv.pop(1))); from eulerstack.cli import main; main()"
    for threads in ("1", "2"):
        arguments = ["--lang", "en", "compile", str(spec), "--output-dir", str(tmp_path / threads)]
        subprocess.run([sys.executable, "-c", code, threads, *arguments], check=True, capture_output=True)
    assert checksums(tmp_path / "1") == checksums(tmp_path / "2")
    assert compile_to(spec, tmp_path / "many", "--shard-size", "60kB") == 0
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text(encoding="utf-8"))
    files = set(index["weight_map"].values())
    assert len(files) >= 15
    many = {name: tensor for file in files for name, tensor in load_file(tmp_path / "many" / file).items()}
    one = load_file(tmp_path / "1" / "model.safetensors")
    assert many.keys() == one.keys() and all(bool((many[name] == one[name]).all()) for name in one)
