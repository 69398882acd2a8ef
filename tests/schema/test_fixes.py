"""Typing what a Fix line offers cures the problem."""

from __future__ import annotations

import re
from typing import Any

import pytest

import eulerstack as es
from eulerstack.dsl.source import parse_text
from eulerstack.errors import ValidationError
from tests.model.words import changed, tiny_spec

ATTENTION = "layer_templates.decoder.mixer.attention"
WRONG: list[tuple[str, Any]] = [
    ("schema_version", 1.5),
    ("schema_version", "64"),
    ("model.d_model", 1e-5),
    ("model.d_model", 36.0),
    ("model.n_heads", "3"),
    ("model.dtype", True),
    ("model.dtype", -1),
    ("model.name", 5),
    ("tokenizer_contract.type", True),
    ("embedding.scale", True),
    ("embedding.scale", "big"),
    ("embedding.rope_partial_factor", "1_000"),
    (f"{ATTENTION}.window", "1"),
    (f"{ATTENTION}.window", True),
    (f"{ATTENTION}.qk_norm", False),
    (f"{ATTENTION}.qk_norm", True),
    (f"{ATTENTION}.window_mode", True),
    (f"{ATTENTION}.attn_drop", "1_000"),
    (f"{ATTENTION}.qkv_bias", "yes"),
    (f"{ATTENTION}.qkv_bias", 1),
    ("layer_templates.decoder.ffn.activation", False),
    ("layer_schedule.0.repeat", 2.5),
]


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda item: str(item))
def test_the_value_that_a_fix_offers_is_taken(path: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EULERSTACK_LANG", "en")
    spec = changed(tiny_spec(), {"model.n_kv_heads": 1, "model.d_model": 36})
    with pytest.raises(ValidationError) as caught:
        es.validate_v2(changed(spec, {path: value}))
    (diagnostic,) = caught.value.diagnostics
    fix = diagnostic.fix.render(lambda text: text)
    offered = re.search(r"(?:Type|for example) (\w+): (.+)$", fix)
    listed = re.search(r"Type one of: ([^,]+)", fix)
    assert offered or listed, fix
    text = offered.group(2) if offered else listed.group(1)
    cured = parse_text(f"value: {text}", "fix.yml")["value"]
    try:
        es.validate_v2(changed(spec, {path: cured}))
    except ValidationError as error:
        pytest.fail(f"{fix}: {error}")
    except es_compatibility():
        # Another size may contradict its neighbours; that is not a matter of this word's type.
        pass


def es_compatibility() -> type[Exception]:
    from eulerstack.errors import CompatibilityError

    return CompatibilityError
