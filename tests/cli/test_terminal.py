"""Text is measured in cells, so that every script aligns and wraps."""

from __future__ import annotations

import pytest

from eulerstack.cli.terminal import cells, in_pairs, long_count, short_bytes, short_count, visible, working, wrap
from eulerstack.compiler.progress import report

TEXTS = {
    "en": "Turn a spec into a HuggingFace model directory, or a JSON configuration (for programs).",
    "ko": "스펙을 HuggingFace 모델 디렉터리나 JSON 설정으로 바꿉니다. 아무것도 쓰지 않습니다.",
    "zh": "把规格变为 HuggingFace 模型目录，或变为 JSON 配置（供程序使用）；不构建也不写入任何内容。",
    "ja": "スペックを HuggingFace モデルのディレクトリ、または JSON 設定に変えます（何も書き込みません）。",
}


def test_wide_characters_take_two_cells_and_accents_none() -> None:
    assert (cells("abc"), cells("한글"), cells("漢字"), cells("e\u0301")) == (3, 4, 4, 1)


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("width", [24, 40, 60])
def test_wrapping_keeps_every_character_and_the_width(language: str, width: int) -> None:
    lines = wrap(TEXTS[language], width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == TEXTS[language].replace(" ", "")


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_no_line_begins_with_closing_punctuation_or_ends_with_an_opening_bracket(language: str) -> None:
    for width in range(12, 60):
        lines = wrap(TEXTS[language], width)
        assert not any(line[0] in "。，、；）" for line in lines)
        assert not any(line[-1] in "（" for line in lines[:-1])


def test_a_number_of_bytes_stays_with_its_unit_and_a_small_kana_with_its_word() -> None:
    for width in range(12, 40):
        lines = wrap("重み 190.9 MiB、オプティマイザ 381.8 MiB、キャッシュ 12 KiB、2 B", width)
        assert not any(line.startswith(("MiB", "KiB", "B", "ィ", "ャ", "ッ", "ュ")) for line in lines)


def test_korean_breaks_between_words_only() -> None:
    words = set(TEXTS["ko"].split())
    assert all(word in words for line in wrap(TEXTS["ko"], 30) for word in line.split())


def test_explanations_align_whatever_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = list(in_pairs([("이름", "x " * 30), ("--option", "y")]))
    assert {cells(line) - cells(line.lstrip()) for line in lines[1:-1]} == {12}
    assert lines[-1] == "  --option  y"


@pytest.mark.parametrize("watched", [False, True])
def test_progress_is_shown_to_a_person_who_watches_and_to_nobody_else(
    watched: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("eulerstack.cli.terminal.is_terminal", lambda *stream: watched)
    # By this rich draws, whatever standard error is.
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with working("Compiling…"):
        report(1, 2)
    shown = capsys.readouterr()
    assert shown.out == "" and ("Compiling…" in shown.err) == watched


def test_control_characters_are_written_out() -> None:
    assert visible("a\x1b[31mb\rc\u202ed") == "a\\x1b[31mb\\rc\\u202ed"
    assert visible("한글 — ok\u3000") == "한글 — ok\u3000"


@pytest.mark.parametrize(
    ("number", "text"),
    [(512, "512"), (12345, "12.3K"), (124_439_808, "124.44M"), (1_481_235_456, "1.48B"), (2e12, "2.00T")],
)
def test_counts_are_said_as_people_say_them(number: int, text: str) -> None:
    assert short_count(number) == text


def test_a_long_count_gives_both_forms() -> None:
    assert long_count(1_481_235_456) == "1.48B (1,481,235,456)"
    assert short_bytes(1536) == "1.5 KiB" and short_bytes(100) == "100 B"
