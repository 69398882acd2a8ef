"""One word for one thing: each language's catalogs use the term that its glossary chose, and none of its rivals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pofile = pytest.importorskip("babel.messages.pofile")

# A placeholder before which nobody knows whether a vowel or a consonant comes, and no syllable after the particle.
AFTER_PLACEHOLDER = r"\}(?:{})(?![가-힣(])"

GLOSSARY: tuple[tuple[str, str, str], ...] = (
    # (language, a pattern of what must not occur, what to write instead)
    ("ko", r"(?<![가-힣])층|선형층", "레이어"),
    ("ko", "문맥", "컨텍스트"),
    ("ko", "낱말", "단어"),
    ("ko", "윈도우|(?<![가-힣])창(?=[은이을과들으\\s])", "윈도"),
    ("ko", "매개변수", "파라미터"),
    ("ko", "훈련", "학습"),
    ("ko", "그래디언트", "기울기"),
    ("ko", "바이어스", "편향"),
    ("ko", "사영", "투영"),
    ("ko", "배율", "스케일"),
    ("ko", "디렉토리", "디렉터리"),
    ("ko", "사양|명세", "스펙"),
    ("ko", r"(?<![가-힣])폭(?=[은이을과으의에\s(])", "너비"),
    ("ko", r"십시오|하라\b", "~세요"),
    ("ko", AFTER_PLACEHOLDER.replace("{}", "은|는"), "은(는)"),
    ("ko", AFTER_PLACEHOLDER.replace("{}", "이|가"), "이(가)"),
    ("ko", AFTER_PLACEHOLDER.replace("{}", "을|를"), "을(를)"),
    ("ko", AFTER_PLACEHOLDER.replace("{}", "과|와"), "와(과)"),
    ("ko", AFTER_PLACEHOLDER.replace("{}", "으로|로"), "(으)로"),
    ("zh", "词元|令牌", "token"),
    ("zh", "层叠", "堆叠"),
    ("zh", "规范|规约", "规格"),
    ("zh", "得分", "分数"),
    ("zh", "底数", "基数"),
    ("zh", "调度|层序", "排布"),
    ("zh", "你", "您"),
    ("zh", "请(?!求)", "an instruction without 请"),
    ("zh", r"[一-鿿]\(|[一-鿿],|[一-鿿]:", "（ ， ："),
    ("ja", "仕様", "スペック"),
    ("ja", "レイヤー", "層"),
    ("ja", "専門家", "エキスパート"),
    ("ja", "文脈", "コンテキスト"),
    ("ja", "窓", "ウィンドウ"),
    ("ja", "復号", "デコード"),
    ("ja", "訓練|トレーニング", "学習"),
    ("ja", "注意(?!を向|しない)", "アテンション"),
    ("ja", "合流(?!させ)", "マージ"),
    ("ja", "デフォルト", "既定"),
    ("ja", "バリュー", "値"),
    ("ja", "費用", "コスト"),
    ("ja", "倍率", "スケール"),
    ("ja", "最適化手法", "オプティマイザー"),
    ("ja", "ひとつ|ふたつ", "一つ, 1 つ"),
    ("ja", "(?:パラメータ|インデクサ|オプティマイザ|トークナイザ|ルータ|アダプタ|フォルダ)(?!ー)", "…ー"),
    ("ja", "メモリー|ディレクトリー", "メモリ"),
    ("ja", "[：；]", ": ;"),
    ("es", r"\bcorrientes?\b", "flujo"),
    ("es", r"\b[Pp]uertas?\b", "compuerta"),
    ("es", "[Aa]nchura", "ancho"),
    ("es", "punto de control", "checkpoint"),
    ("es", "fichero", "archivo"),
    ("es", "calendario|un mismo orden|programa de capas", "secuencia de capas"),
    ("es", "quería decir|quisiste", "quiso decir"),
    ("es", r"\b[Tt][uú]s?\b|\b[Tt]i\b", "su, usted"),
)


def forbidden(language: str, sentence: str) -> Iterator[str]:
    """What is wrong with a sentence of a language, with what to write instead."""
    for its_language, pattern, instead in GLOSSARY:
        found = re.search(pattern, sentence) if its_language == language else None
        if found:
            yield f"{found[0]!r} in {sentence!r}: write {instead}"


@pytest.mark.parametrize("language", ["ko", "zh", "ja", "es"])
def test_every_sentence_uses_the_terms_of_the_glossary(language: str) -> None:
    paths = sorted(ROOT.glob(f"eulerstack-*/**/locale/{language}/LC_MESSAGES/*.po"))
    assert len(paths) >= 2
    wrong = [
        f"{path.name}: {problem}"
        for path in paths
        for message in pofile.read_po(path.read_bytes().splitlines(keepends=True), locale=language)
        if message.id
        for problem in forbidden(language, str(message.string))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("language", "wrong", "right"),
    [
        ("ko", "{name}을 지우십시오", "{name}을(를) 지우세요"),
        ("ko", "같은 층의 연속", "같은 레이어의 계층"),
        ("zh", "每个词元的缓存", "每个 token 的缓存"),
        ("zh", "请删除 hidden", "删除 hidden，再请求一次"),
        ("ja", "学習されるパラメータ", "学習されるパラメーター"),
        ("ja", "マルチヘッド注意", "注意を向けるマルチヘッドアテンション"),
        ("es", "la puerta de tu capa", "la compuerta de su capa"),
    ],
)
def test_the_glossary_notices_what_it_is_for(language: str, wrong: str, right: str) -> None:
    assert list(forbidden(language, wrong)) != [] and list(forbidden(language, right)) == []


def test_no_term_is_forbidden_and_advised_at_once() -> None:
    assert [instead for language, _pattern, instead in GLOSSARY if re.search(r"[^\x00-\x7f]", instead)
            and language != "zh" and list(forbidden(language, instead))] == []  # fmt: skip
