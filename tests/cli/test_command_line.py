"""The command line itself: mistakes, languages, pipes, and what is never imported."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from eulerstack import __version__
from eulerstack.cli import terminal
from eulerstack.cli.running import noting_interrupts
from eulerstack.i18n import LANGUAGES
from tests.cli.conftest import Run

MISTAKES = {
    ("valdate",): ("valdate", "eulerstack validate"),
    ("nonsense-entirely",): ("nonsense-entirely", "validate, explain, compile"),
    ("presets", "lst"): ("lst", "eulerstack presets list"),
    ("validate", "--reprt", "x"): ("--reprt", "--report"),
    ("validate",): ("--preset", "eulerstack validate --preset my_model.yml"),
    ("validate", "a", "--preset", "b"): ("--preset", "eulerstack validate --preset b"),
    ("validate", "--preset"): ("--preset", "--preset VALUE"),
    ("explain", "a", "b"): ("b", "eulerstack explain --help"),
    ("validate", "a", "--set"): ("--set", "--set VALUE"),
    ("export-spec",): ("DIR", "eulerstack export-spec ./my_model"),
    ("validate", "a", "--max-errors", "many"): ("--max-errors", "eulerstack validate --help"),
    ("validate", "a", "--max-errors", "-1"): ("--max-errors", "eulerstack validate --help"),
    ("validate", "a", "--json=yes"): ("--json", "--json"),
    ("validate", "--lang", "en", "a"): ("--lang", "eulerstack --lang en validate"),
    ("compile", "a", "--seed", "1.5"): ("--seed", "eulerstack compile --help"),
    ("compile", "a", "--seed", str(2**63)): ("--seed", "eulerstack compile --help"),
    ("import",): ("HF_DIR", "eulerstack import HF_DIR --output-dir ./imported"),
    ("import", "x"): ("--output-dir", "eulerstack import x --output-dir ./imported"),
    ("--no-such",): ("--no-such", "eulerstack --help"),
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mistake_is_three_lines_with_what_to_type_and_exit_code_2(
    run: Run, arguments: tuple[str, ...], language: str
) -> None:
    path, fix = MISTAKES[arguments]
    outcome = run(*arguments, lang=language)
    lines = outcome.err.splitlines()
    assert outcome.code == 2 and outcome.out == "" and len(lines) == 3
    assert lines[0].startswith(f"ValidationError: {path}: ")
    assert lines[1].startswith("Fix: ") and fix in lines[1]
    assert lines[2].startswith("See: reference/cli.md#")


@pytest.mark.parametrize("arguments", [("--lang", "fr", "schema"), ("--lang=xx", "schema"), ("--lang",)])
def test_an_unknown_language_is_a_mistake_too(run: Run, arguments: tuple[str, ...]) -> None:
    outcome = run(*arguments, lang=None)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 3
    assert outcome.err.startswith("ValidationError: --lang: ") and "ko, en, zh, ja, es" in outcome.err


def test_an_unknown_language_in_the_environment_is_named_by_its_variable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EULERSTACK_LANG", "klingon")
    outcome = run("schema", lang=None)
    assert outcome.code == 2 and outcome.err.startswith("ValidationError: EULERSTACK_LANG: ")


def test_korean_is_spoken_unless_asked_otherwise(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "사용법:" in run("--help", lang=None).out
    monkeypatch.setenv("EULERSTACK_LANG", "ja")
    assert "使い方:" in run("--help", lang=None).out
    assert "Uso:" in run("--help", lang="es").out
    monkeypatch.setenv("EULERSTACK_LANG", "zh_CN.UTF-8")
    assert "用法：" in run("--help", lang=None).out


COMMANDS = [(), ("validate",), ("explain",), ("compile",), ("schema",), ("import",), ("presets",), ("presets", "list"),
            ("presets", "show"), ("plugins",), ("plugins", "list"),
            ("plugins", "show"), ("plugins", "doctor"), ("plugins", "new")]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_translated_whole_and_fits_80_columns(run: Run, command: tuple[str, ...]) -> None:
    english = run(*command, "--help")
    assert english.code == 0 and english.err == ""
    sentences = {
        line.strip() for line in english.out.splitlines() if line.strip().count(" ") > 3 and "[OPTIONS]" not in line
    }
    for language in LANGUAGES:
        out = run(*command, "-h", lang=language).out
        assert [line for line in out.splitlines() if terminal.cells(line) > 80] == []
        if language != "en":
            same = {line.strip() for line in out.splitlines()} & sentences
            assert not same, f"{language}: {same}"


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    assert run().out == run("--help").out
    assert run("presets").out == run("presets", "--help").out


def test_the_version_is_shown(run: Run) -> None:
    assert run("--version") == (0, f"eulerstack {__version__}\n", "")


def test_a_defect_is_three_lines_and_a_traceback_on_request(
    run: Run, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eulerstack.cli import validate

    def defective(reference: str, assignments: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(validate, "read", defective)
    outcome = run("validate", spec)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3
    assert "ZeroDivisionError: boom" in outcome.err and "EULERSTACK_TRACEBACK=1" in outcome.err
    monkeypatch.setenv("EULERSTACK_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run("validate", spec)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own answer to an interrupt, also where the tests run in the background and were started without it."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_a_library_turns_into_its_own_error_is_an_interrupt_still(
    run: Run, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eulerstack.cli import validate

    def interrupted(reference: str, assignments: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as interrupt:
            raise ModuleNotFoundError("a part is missing") from interrupt

    monkeypatch.setattr(validate, "read", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    assert run("validate", spec) == (130, "", "")
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_until_torch_is_imported_which_would_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    half = ModuleType("torch")
    half.__spec__ = ModuleSpec("torch", None)
    half.__spec__._initializing = True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", half)
    reached = False
    with pytest.raises(KeyboardInterrupt), noting_interrupts():
        signal.raise_signal(signal.SIGINT)
        reached = True
        half.__spec__._initializing = False  # type: ignore[attr-defined]
        time.sleep(5)
    assert reached


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from eulerstack.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "--lang", "en", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", "SPEC", "--report"),
        ("explain", "SPEC"),
        ("compile", "SPEC", "--print-config"),
        ("compile", "SPEC", "--validate-only"),
        ("compile", "SPEC", "--output", "OUT"),
        ("schema",),
        ("presets", "list"),
        ("plugins", "list"),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(spec: Path, arguments: tuple[str, ...]) -> None:
    names = {"SPEC": str(spec), "OUT": str(spec.parent / "config.json")}
    done = process(*(names.get(each, each) for each in arguments))
    assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_is_not_an_error() -> None:
    code = "import sys; from eulerstack.cli import main; sys.exit(main(['--lang', 'en', 'schema', '--json']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


def test_a_terminal_that_lacks_characters_gets_escapes(spec: Path) -> None:
    done = process("explain", spec, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "0\\u20131" in done.stdout


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """What the command writes when standard output and error are a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; from eulerstack.cli import main; sys.exit(main())", *map(str, arguments)],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", **environment},
    ) as child:
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            written += piece
        child.wait()
    os.close(ours)
    return written.decode("utf-8")


def test_a_terminal_gets_styles_and_a_pipe_gets_none(spec: Path) -> None:
    assert "\x1b[" in on_a_terminal("explain", spec)
    assert "\x1b[" not in process("explain", spec).stdout
    assert "\x1b[3" not in on_a_terminal("explain", spec, NO_COLOR="1")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("arguments", [("presets", "list"), ("plugins", "list"), ("explain", "llm_16b_mistral")])
def test_tables_fit_a_terminal_of_80_columns_in_every_language(language: str, arguments: tuple[str, ...]) -> None:
    written = on_a_terminal("--lang", language, *arguments)
    plain = terminal.STYLE.sub("", written).replace("\r", "")
    assert plain.strip() and [line for line in plain.splitlines() if terminal.cells(line) > 80] == []
    whole = {"presets": "arch_expert_frontier_full_moe_mini", "plugins": "hyper_connection", "explain": "gated_mlp"}
    assert whole[arguments[0]] in plain


def test_a_long_compile_shows_how_far_it_is_to_a_person_only(spec: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    shown = on_a_terminal("--lang", "en", "compile", spec, "--output-dir", tmp_path / "one")
    assert "Building the model" in shown and "100%" in shown
    piped = process("compile", spec, "--output-dir", tmp_path / "two")
    assert "Building" not in piped.stderr and "%" not in piped.stdout + piped.stderr
