"""What the declarations of eulerstack-mixers promise about their words."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from eulerstack.plugins import Primitive
from eulerstack_mixers import plugin
from eulerstack_mixers.declarations.rope_scaling import SCALING_WORDS

PRIMITIVES: tuple[Primitive, ...] = (
    *plugin.eulerstack_mixers(),
    *plugin.eulerstack_ffns(),
    *plugin.eulerstack_norms(),
    *plugin.eulerstack_positions(),
    *plugin.eulerstack_residuals(),
    *plugin.eulerstack_heads(),
)


def words(primitive: Primitive) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from primitive.inline.items()
    yield from (primitive.schema or {}).get("properties", {}).items()
    for kind, scaling in SCALING_WORDS.items():
        yield from ((f"{kind}.{word}", schema) for word, schema in scaling.items())


def identity(primitive: Primitive) -> str:
    return f"{primitive.kind}:{primitive.name}"


@pytest.mark.parametrize("primitive", PRIMITIVES, ids=identity)
def test_every_word_is_described_in_a_sentence(primitive: Primitive) -> None:
    for word, schema in words(primitive):
        assert schema.get("description", "").endswith("."), word


@pytest.mark.parametrize("primitive", PRIMITIVES, ids=identity)
def test_every_default_satisfies_its_own_schema(primitive: Primitive) -> None:
    for word, schema in words(primitive):
        if "default" in schema:
            assert Draft202012Validator(schema).is_valid(schema["default"]), word


@pytest.mark.parametrize("primitive", PRIMITIVES, ids=identity)
def test_schemas_are_json_schema(primitive: Primitive) -> None:
    Draft202012Validator.check_schema({"properties": dict(primitive.inline)})
    Draft202012Validator.check_schema(primitive.schema or {})


@pytest.mark.parametrize("primitive", PRIMITIVES, ids=identity)
def test_only_words_that_inherit_from_elsewhere_have_neither_default_nor_obligation(primitive: Primitive) -> None:
    required = set((primitive.schema or {}).get("required", ()))
    undecided = {
        word for word, schema in (primitive.schema or {}).get("properties", {}).items() if "default" not in schema
    }
    assert undecided == required


@pytest.mark.parametrize("primitive", PRIMITIVES, ids=identity)
def test_every_primitive_names_its_class_and_its_summary(primitive: Primitive) -> None:
    module, _, name = primitive.module.partition(":")
    # What a layer does without, and positions that are the mixers' business, need no class.
    if (primitive.kind, primitive.name) in (("ffn", "none"), ("position", "none")):
        assert primitive.module == ""
    else:
        assert module.startswith("eulerstack_mixers.modules.") and name[0].isupper()
    assert primitive.summary and not primitive.summary.endswith(".")


@pytest.mark.parametrize(
    ("position", "rope", "accepted"),
    [
        ("null", None, True),
        ("false", False, True),
        ("true", True, False),
        ("empty mapping", {}, True),
        ("own theta", {"theta": 1e6}, True),
        ("no scaling", {"scaling": None}, True),
        ("linear", {"scaling": {"type": "linear", "factor": 2}}, True),
        ("linear without factor", {"scaling": {"type": "linear"}}, False),
        ("a word of another scaling", {"scaling": {"type": "linear", "factor": 2, "beta_fast": 32}}, False),
        ("unknown word", {"base": 1e6}, False),
    ],
)
def test_a_templates_rope_is_null_false_or_a_mapping(position: str, rope: object, accepted: bool) -> None:
    schema = plugin.eulerstack_mixers()[0].schema
    assert Draft202012Validator(schema).is_valid({"rope": rope}) is accepted


def test_importing_the_plugin_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, eulerstack_mixers.plugin; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
