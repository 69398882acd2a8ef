"""What strangers' packages bring works from end to end, each kind from a package of its own.

`scripts/check_vendor_wheels.py` says the same of their wheels, in a clean environment and in one without them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack.cli import main
from eulerstack.cli.describe import describe
from eulerstack.dsl.source import parse_text
from eulerstack.errors import CompatibilityError
from eulerstack.i18n import LANGUAGES, using
from eulerstack.ir.printer import print_ir
from eulerstack.plugins.manager import get_registry
from tests.toy_plugin.conftest import LOAD_WITHOUT_EULERSTACK
from tests.vendor_packages.conftest import HERE, PROJECTS

pytestmark = pytest.mark.usefixtures("aviary")
NAMES = sorted(file.parent.name for file in PROJECTS)
CLASSES = ("SparrowShift", "HeronBilinear", "StorkTrace", "CraneMidpoint", "SwiftThin")
SENTENCES = {
    "ko": "aviary이라는 이름은", "en": "the name aviary says little", "zh": "名称 aviary", "ja": "aviary という名前",
    "es": "el nombre aviary",
}  # fmt: skip


def preset() -> dict[str, Any]:
    return dict(es.load("robin-aviary"))


def some_ids() -> torch.Tensor:
    return torch.randint(1, 320, (1, 11), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def exported(aviary: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preset, compiled by the command."""
    output = tmp_path_factory.mktemp("export") / "aviary"
    assert main(["compile", "--preset", "robin-aviary", "--output-dir", str(output), "--seed", "0"]) == 0
    return output


def test_there_is_a_package_for_everything_that_a_stranger_may_bring() -> None:
    texts = [file.read_text(encoding="utf-8") for name in NAMES for file in (HERE / name).rglob("plugin.py")]
    found = {hook for text in texts for hook in re.findall(r"^def eulerstack_(\w+)", text, re.MULTILINE)}
    assert found == {
        "mixers", "ffns", "memories", "integrators", "rules", "presets", "messages", "namespaces", "linears"
    }  # fmt: skip


def test_every_package_works_and_is_a_strangers(capsys: pytest.CaptureFixture[str]) -> None:
    records = [record for record in get_registry().records() if record.name in NAMES]
    assert sorted(record.name for record in records) == NAMES
    assert all(record.state == "ok" and not record.own for record in records), [each.traceback for each in records]
    assert main(["--lang", "en", "plugins", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(record.package in listed for record in records)


def test_the_price_is_that_of_the_model_and_both_ways_to_build_give_the_same_numbers(exported: Path) -> None:
    ir = es.normalize_to_ir(preset())
    model = es.compile_to_hf_model(ir, seed=0)
    assert es.count_parameters(ir) == sum(parameter.numel() for parameter in model.parameters())
    assert {type(each).__name__ for each in model.modules()} >= set(CLASSES)
    from safetensors.torch import load_file

    for name, tensor in load_file(exported / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_cached_decoding_equals_the_whole() -> None:
    model, ids = es.compile_to_hf_model(es.normalize_to_ir(preset()), seed=0), some_ids()
    with torch.no_grad():
        whole = model(ids).logits
        first = model(ids[:, :4], use_cache=True)
        rest = model(ids[:, 4:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(torch.cat((first.logits, rest), 1), whole, atol=1e-5, rtol=0)


def test_their_code_travels_and_loads_where_they_are_not(exported: Path, tmp_path: Path) -> None:
    source = (exported / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert all(f"class {name}(" in source for name in CLASSES) and "import eulerstack" not in source
    provenance = json.loads((exported / "provenance.json").read_text(encoding="utf-8"))["plugins"]
    for package in ("sparrow-mixer", "heron-ffn", "stork-memory", "crane-integrator", "swift-namespace"):
        assert provenance[package] == "0.3.0"
    ids = some_ids()
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT_EULERSTACK, str(exported), json.dumps(ids[0].tolist())],
        check=True,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    )
    found = json.loads(done.stdout.decode().splitlines()[-1])
    model = es.compile_to_hf_model(es.normalize_to_ir(preset()), seed=0)
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(found["logits"]), model(ids).logits[0, -1, :8], atol=1e-6, rtol=0)
    tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert found["tokens"] == tokens[0].tolist()


def test_the_namespaces_hook_changes_the_model_and_what_config_json_says(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    assert config["v1_extensions"]["vendor.swift.low_rank"] == {
        "rank": 4, "names": ["one_proj", "up_proj"], "of": "aviary"
    }  # fmt: skip
    (node,) = config["architecture"]["linears"]
    places = [f"layers.{place}" for place in ("0.ffn.one_proj", "1.ffn.one_proj", "2.layers.0.ffn.up_proj")]
    assert node["type"] == "vendor.swift.thin" and node["modules"] == places
    ir = es.normalize_to_ir(preset())
    assert es.normalize_to_ir(parse_text(print_ir(ir), "again.yml")) == ir
    plain = preset()
    del plain["vendor.swift.low_rank"]
    groups = describe(es.load("robin-aviary"), ir)["replaced_linears"]
    saved = sum(group["dense_params"] - group["total_params"] for group in groups)
    assert saved == es.count_parameters(es.normalize_to_ir(plain)) - es.count_parameters(ir) == 3 * (32 * 48 - 4 * 80)
    with using("en"), pytest.raises(CompatibilityError, match="can't have a low rank"):
        es.normalize_to_ir({**preset(), "vendor.swift.low_rank": {"rank": 32}})


def test_the_preset_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "en", "presets", "list"]) == 0
    assert "robin-aviary" in capsys.readouterr().out


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_rule_fires_in_the_users_language_with_its_package_named(
    language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--lang", language, "validate", "--preset", "robin-aviary", "--report"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "[finch_name, finch-rule 0.3.0]" in printed and SENTENCES[language] in printed
    assert main(["--lang", language, "validate", "--preset", "robin-aviary", "--report", "--json"]) == 0
    (finding,) = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["rule"] == "finch_name"]
    assert finding["package"] == "finch-rule" and SENTENCES[language] in finding["what"]


def test_without_a_package_a_spec_that_needs_it_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from eulerstack.plugins.manager import reset_registry

    spec = preset()
    monkeypatch.setenv("EULERSTACK_DISABLE_PLUGINS", "heron-ffn")
    reset_registry()
    try:
        with using("en"), pytest.raises(CompatibilityError, match="heron-ffn 0.3.0 is disabled"):
            es.validate_v2(spec)
    finally:
        monkeypatch.undo()
        reset_registry()
