"""A third party's mixer, through the public hooks alone: declared, priced, built, exported, loaded, generated from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import eulerstack as es
from eulerstack.cli import main
from eulerstack.errors import CompatibilityError, ValidationError
from eulerstack.plugins.manager import Registry, get_registry
from eulerstack.plugins.sources import installed_sources
from tests.toy_plugin.conftest import loaded_elsewhere

HERE = Path(__file__).parent
SPEC = HERE / "src" / "eulerstack_toy" / "presets" / "toy-ema.yml"


@pytest.fixture(scope="module")
def directory(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported toy model."""
    output = tmp_path_factory.mktemp("export") / "toy"
    assert main(["compile", "--preset", str(SPEC), "--output-dir", str(output)]) == 0
    return output


def some_ids(time: int = 21, batch: int = 2) -> torch.Tensor:
    return torch.randint(1, 32000, (batch, time), generator=torch.Generator().manual_seed(2))


def test_the_mixer_comes_from_its_own_distribution(installed: None) -> None:
    assert get_registry().origin(get_registry().get("mixer", "vendor.toy.ema")) == ("eulerstack-toy", "0.1.0")


def test_plugins_list_shows_it(installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "list", "--json"]) == 0
    (record,) = [each for each in json.loads(capsys.readouterr().out) if each["package"] == "eulerstack-toy"]
    assert record["state"] == "ok"
    assert ("mixer", "vendor.toy.ema") in [(each["kind"], each["name"]) for each in record["primitives"]]


def test_the_spec_validates_without_warnings(installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "en", "validate", "--preset", str(SPEC), "--report"]) == 0
    assert "warning" not in capsys.readouterr().out.lower()


def test_explain_names_the_mixer_and_the_exact_size(installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "en", "explain", "--preset", str(SPEC)]) == 0
    output = capsys.readouterr().out
    assert "vendor.toy.ema" in output
    assert f"{es.count_parameters(es.normalize_to_ir(es.load(SPEC))):,}" in output


@pytest.mark.parametrize(
    ("written", "path"),
    [("{ half_life: -1 }", "half_life"), ("{ half_life: true }", "half_life"), ("{ halflife: 8 }", "halflife")],
)
def test_wrong_words_of_the_block_are_located(installed: None, tmp_path: Path, written: str, path: str) -> None:
    spec = tmp_path / "wrong.yml"
    spec.write_text(SPEC.read_text(encoding="utf-8").replace("{ half_life: 8.0 }", written), encoding="utf-8")
    with pytest.raises(ValidationError) as caught:
        es.validate_v2(es.load(spec))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.path.endswith(path) and diagnostic.location.line == 18


def test_asserting_a_kv_cache_is_a_contradiction(installed: None, tmp_path: Path) -> None:
    spec = tmp_path / "wrong.yml"
    spec.write_text(SPEC.read_text(encoding="utf-8").replace("ssm_state: true", "kv_cache: true"), encoding="utf-8")
    with pytest.raises(CompatibilityError):
        es.validate_v2(es.load(spec))


def test_without_the_plugin_the_error_names_the_mixer() -> None:
    without = Registry(source for source in installed_sources() if source.own)
    with pytest.raises(CompatibilityError, match="vendor.toy.ema"):
        es.normalize_to_ir(es.load(SPEC), without)


def test_validating_and_explaining_import_no_torch(site: Path) -> None:
    code = (
        "import sys; from eulerstack.cli import main\n"
        f"assert main(['validate', '--preset', {str(SPEC)!r}, '--report']) == 0\n"
        f"assert main(['explain', '--preset', {str(SPEC)!r}]) == 0\n"
        "assert 'eulerstack_toy' in sys.modules\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)


def test_half_life_sets_the_first_decay(installed: None) -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(es.load(SPEC)), seed=0)
    decay = torch.sigmoid(model.model.layers[0].mixer.decay_logit)
    torch.testing.assert_close(decay**8, torch.full_like(decay, 0.5))


def test_the_export_holds_the_mixer_and_no_import_of_its_package(directory: Path) -> None:
    source = (directory / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "class ToyEMA(nn.Module)" in source
    assert "import eulerstack" not in source and "from eulerstack" not in source
    assert json.loads((directory / "config.json").read_text(encoding="utf-8"))["model_type"] == "eulerstack"


def test_the_export_loads_and_generates_where_nothing_of_ours_is_installed(directory: Path, tmp_path: Path) -> None:
    ids = some_ids(batch=1)[0].tolist()
    loaded = loaded_elsewhere(directory, ids, tmp_path)
    built = es.compile_to_hf_model(es.normalize_to_ir(es.load(SPEC)), seed=0).eval()
    with torch.no_grad():
        logits = built(torch.tensor([ids])).logits[0, -1, :8]
        tokens = built.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=8,
            do_sample=False,
            pad_token_id=0,
        )
    torch.testing.assert_close(torch.tensor(loaded["logits"]), logits, atol=1e-6, rtol=0)
    assert loaded["tokens"] == tokens[0].tolist()


def test_the_wheel_holds_the_package_and_its_entry_point(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    code = f"from hatchling.build import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE, stdout=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "toy = eulerstack_toy.plugin" in archive.read(entry_points).decode()
    assert {f"eulerstack_toy/{part}/ema.py" for part in ("declarations", "modules", "reference")} <= names


def test_it_can_be_a_branch_and_loads_where_nothing_of_ours_is_installed(installed: None, tmp_path: Path) -> None:
    spec = dict(es.load(SPEC))
    toy = spec["layer_templates"][next(iter(spec["layer_templates"]))]["mixer"]
    branches = {"toy": toy, "attn": {"type": "attention", "attention": {"window": 6}}}
    mixer = {"type": "branched", "branched": {"branches": branches, "selector": {"type": "top_k"}}}
    spec["layer_templates"] = {name: {**each, "mixer": mixer} for name, each in spec["layer_templates"].items()}
    for template in spec["layer_templates"].values():
        template.pop("state", None)
    ir = es.normalize_to_ir(spec)
    built = es.compile_to_hf_model(ir, seed=3)
    assert sum(parameter.numel() for parameter in built.parameters()) == es.count_parameters(ir)
    es.compile_to_directory(ir, tmp_path / "model", seed=3)
    ids = some_ids(batch=1, time=9)[0]
    found = loaded_elsewhere(tmp_path / "model", ids.tolist(), tmp_path)
    with torch.no_grad():
        expected = built(ids[None]).logits[0, -1, :8]
    assert found["logits"] == expected.tolist()
    generated = built.generate(ids[None], max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert found["tokens"] == generated[0].tolist()
