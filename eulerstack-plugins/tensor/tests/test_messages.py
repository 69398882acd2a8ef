"""Everything that this package says has a translation in its own catalogs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import eulerstack as es
import eulerstack_tensor
from eulerstack.cli import main
from eulerstack.errors import CompatibilityError
from eulerstack.i18n import translator, using
from eulerstack_tensor.declarations.messages import DOMAIN
from eulerstack_tensor.plugin import eulerstack_linears, eulerstack_namespaces

ROOT = Path(eulerstack_tensor.__file__).parent


def sentences() -> Iterator[str]:
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tensor_msg":
                assert isinstance(node.args[0], ast.Constant)
                yield node.args[0].value
    yield from (primitive.summary for primitive in eulerstack_linears())
    (namespace,) = eulerstack_namespaces()
    yield namespace.summary
    yield from descriptions(namespace.schema)


def descriptions(schema: Mapping[str, Any]) -> Iterator[str]:
    yield from (value for key, value in schema.items() if key == "description")
    yield from (text for each in schema.get("properties", {}).values() for text in descriptions(each))


@pytest.mark.parametrize("language", ["ko", "zh", "ja", "es"])
def test_every_sentence_is_translated_and_none_is_left_over(language: str) -> None:
    with using(language):
        translate = translator(DOMAIN)
        found = set(sentences())
        assert len(found) > 25
        assert [text for text in found if translate(text) == text] == []
        catalog = translate.__self__._catalog  # type: ignore[attr-defined]
        assert set(catalog) - {""} == found


@pytest.mark.parametrize(
    ("language", "words"), [("ko", "선형 레이어가 없습니다"), ("es", "no coincide con ninguna capa")]
)
def test_an_error_and_the_words_of_the_key_speak_the_users_language(
    language: str, words: str, tools: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with using(language), pytest.raises(CompatibilityError) as caught:
        es.normalize_to_ir(tools.spec({"form": "tt", "match": ["*.w1"]}))
    with using(language):
        assert words in caught.value.diagnostics[0].lines()[0]
    assert main(["--lang", language, "schema"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert {"ko": "행렬이 텐서 네트워크인 선형 레이어", "es": "El mayor enlace entre dos tensores"}[language] in printed
