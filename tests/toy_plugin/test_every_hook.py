"""Every hook has an effect from end to end: a third party's declaration reaches the user, the file or the numbers."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import eulerstack as es
from eulerstack.cli import main
from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.importing import export_checkpoint
from eulerstack.errors import CompatibilityError, CompileError, ValidationError
from eulerstack.ir.printer import print_ir
from eulerstack.plugins import hookimpl, hookspecs
from eulerstack.plugins.manager import Registry, get_registry
from eulerstack.plugins.sources import installed_sources
from tests.toy_plugin.conftest import loaded_elsewhere

pytestmark = pytest.mark.usefixtures("installed")
ON_TRIAL: set[str] = set()
EMA = "layer_templates.ema"
# hook -> type, class, the word that is tried (dotted path), another value for it, and one that it can't have
WORDS: dict[str, tuple[str, str, str, Any, Any]] = {
    "eulerstack_mixers": ("vendor.toy.ema", "ToyEMA", f"{EMA}.mixer.+.half_life", 2.0, -1),
    "eulerstack_ffns": ("vendor.toy.maxout", "ToyMaxout", f"{EMA}.ffn.+.pieces", 2, 0),
    "eulerstack_norms": ("vendor.toy.power", "ToyPowerNorm", f"{EMA}.norm.+.p", 3.0, 0.5),
    "eulerstack_positions": ("vendor.toy.waves", "ToyWaves", "embedding.+.base", 50.0, 1),
    "eulerstack_residuals": ("vendor.toy.gated", "ToyGatedResidual", f"{EMA}.residual.+.start", 0.25, "much"),
    "eulerstack_memories": ("vendor.toy.average", "ToyAverage", f"{EMA}.memory.+.scale", 3.0, "loud"),
    "eulerstack_heads": ("vendor.toy.low_rank", "ToyLowRankHead", "head.+.rank", 4, 0),
    "eulerstack_integrators": ("vendor.toy.relax", "ToyRelax", "layer_schedule.2.integrator.+.rate", 0.25, 2),
    "eulerstack_merges": ("vendor.toy.blend", "ToyBlend", "layer_schedule.3.merge.+.share", 0.75, 1),
}


def tries(*hooks: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Says which hooks a test tries."""
    ON_TRIAL.update(hooks)
    return lambda test: test


def preset() -> dict[str, Any]:
    return copy.deepcopy(dict(es.load("toy")))


def with_word(hook: str, value: Any) -> dict[str, Any]:
    """The preset with the hook's word at another value."""
    name, _, path, _, _ = WORDS[hook]
    spec = preset()
    *parents, last = [name if part == "+" else int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = spec
    for part in parents:
        place = place[part]
    place[last] = value
    return spec


def model_of(spec: dict[str, Any]) -> Any:
    return es.compile_to_hf_model(es.normalize_to_ir(spec), seed=0)


def test_a_residual_may_have_several_streams(tmp_path: Path) -> None:
    spec = with_word("eulerstack_residuals", 0.25)
    spec["layer_templates"][EMA.rpartition(".")[2]]["residual"]["vendor.toy.gated"]["streams"] = 3
    ir, model = es.normalize_to_ir(spec), model_of(spec)
    assert sum(each.numel() for each in model.parameters()) == es.count_parameters(ir)
    assert model.model.stream_ends is not None
    model.eval()
    ids = torch.arange(12)[None]
    whole = model(ids, output_hidden_states=True)
    assert any(states.shape[2:] == (3, model.config.hidden_size) for states in whole.hidden_states)
    first = model(ids[:, :5], use_cache=True)
    rest = model(ids[:, 5:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat((first.logits, rest.logits), 1), whole.logits, atol=1e-5, rtol=1e-5)
    es.compile_to_directory(ir, tmp_path / "model", seed=0)
    assert "class ToyStreamEnds" in (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def some_ids(batch: int = 1, time: int = 11) -> torch.Tensor:
    return torch.randint(1, 320, (batch, time), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def directory(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preset, compiled by the command."""
    output = tmp_path_factory.mktemp("export") / "toy"
    assert main(["compile", "--preset", "toy", "--output-dir", str(output), "--seed", "0"]) == 0
    return output


def test_every_hook_has_a_trial() -> None:
    assert {name for name in vars(hookspecs) if name.startswith("eulerstack_")} == ON_TRIAL


def test_the_package_works() -> None:
    (record,) = [record for record in get_registry().records() if record.package == "eulerstack-toy"]
    assert record.state == "ok", record.traceback


@tries(*WORDS)
@pytest.mark.parametrize("hook", WORDS)
def test_a_primitives_word_is_validated_with_its_place(hook: str, tmp_path: Path) -> None:
    name, _, path, _, wrong = WORDS[hook]
    file = tmp_path / "wrong.yml"
    file.write_text(json.dumps(with_word(hook, wrong)), encoding="utf-8")
    with pytest.raises(ValidationError) as caught:
        es.validate_v2(es.load(file))
    (problem,) = caught.value.diagnostics
    assert problem.path == re.sub(r"\.(\d+)", r"[\1]", path).replace("+", name) and problem.location is not None


@pytest.mark.parametrize("hook", WORDS)
def test_a_primitive_is_explained_in_the_schema_and_of_a_model(hook: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, _, path, _, _ = WORDS[hook]
    assert main(["--lang", "en", "schema"]) == 0
    assert f"{name}.{path.rpartition('.')[2]}" in capsys.readouterr().out
    assert main(["--lang", "en", "explain", "--preset", "toy", "--json"]) == 0
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("hook", WORDS)
def test_a_primitives_word_changes_what_is_computed_and_its_price_stays_exact(hook: str) -> None:
    _, _, _, other, _ = WORDS[hook]
    changed = with_word(hook, other)
    before, after = model_of(preset()), model_of(changed)
    with torch.no_grad():
        assert not torch.allclose(before(some_ids()).logits, after(some_ids()).logits)
    for spec, model in ((preset(), before), (changed, after)):
        assert es.count_parameters(es.normalize_to_ir(spec)) == parameters(model)


@pytest.mark.parametrize("hook", WORDS)
def test_a_primitives_class_is_in_the_export_and_only_where_it_is_used(
    hook: str, directory: Path, tmp_path: Path
) -> None:
    name, source, _, _, _ = WORDS[hook]
    assert f"class {source}(" in (directory / "modeling_eulerstack.py").read_text(encoding="utf-8")
    spec = json.loads(json.dumps(preset()).replace("vendor.toy.low_rank", "causal_lm"))
    spec["head"] = {"type": "causal_lm"}
    spec["embedding"] = {"type": "learned", "positional": "rope"}
    spec["layer_templates"] = {"attention": spec["layer_templates"]["attention"]}
    spec["layer_schedule"] = [{"template": "attention"}]
    es.compile_to_directory(es.normalize_to_ir(spec), tmp_path / "plain")
    assert f"class {source}(" not in (tmp_path / "plain" / "modeling_eulerstack.py").read_text(encoding="utf-8")


def test_the_model_loads_and_generates_where_nothing_of_ours_is_installed(directory: Path, tmp_path: Path) -> None:
    ids = some_ids()
    found = loaded_elsewhere(directory, ids[0].tolist(), tmp_path)
    built = model_of(preset())
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(found["logits"]), built(ids).logits[0, -1, :8], atol=1e-6, rtol=0)
    tokens = built.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert found["tokens"] == tokens[0].tolist()


@tries("eulerstack_positions")
def test_positions_tell_places_apart() -> None:
    spec = preset()
    spec["model"]["initializer_range"] = 0.3
    spec["layer_schedule"] = [{"template": "attention"}]
    ids = torch.tensor([[5, 6, 7, 8], [7, 5, 6, 8]])
    with torch.no_grad():
        waves = model_of(spec)(ids).logits[:, -1]
        spec["embedding"]["positional"] = "none"
        nowhere = model_of(spec)(ids).logits[:, -1]
    assert torch.allclose(nowhere[0], nowhere[1], atol=1e-5)
    assert (waves[0] - waves[1]).abs().max() > 1e-2


class TestMemory:
    """A memory of a third party's, which the core resets, hands on and steps like its own project's."""

    def test_cached_decoding_goes_on_with_it(self) -> None:
        model, ids = model_of(preset()), some_ids(batch=2)
        with torch.no_grad():
            whole = model(ids).logits
            first = model(ids[:, :4], use_cache=True)
            rest = model(ids[:, 4:], past_key_values=first.past_key_values)
        assert torch.allclose(torch.cat((first.logits, rest.logits), 1), whole, atol=1e-5)

    def test_a_step_is_reported_by_its_name_and_held_until_reset(self) -> None:
        model, ids = model_of(preset()), some_ids()
        with torch.no_grad():
            before = model(ids, output_hidden_states=True)
            surprise = model.step_memory_at_inference(before.hidden_states[-1])
            places = ("0", "1", "4.streams.0.layers.0")
            assert set(surprise) == {f"eulerstack.layers.{place}.toy_average" for place in places}
            assert not torch.allclose(model(ids).logits, before.logits)
            model.reset_memory()
            assert torch.equal(model(ids).logits, before.logits)

    def test_one_that_lacks_the_words_of_all_memories_is_set_aside(self) -> None:
        primitive = get_registry().get("memory", "vendor.toy.average")
        module = types.ModuleType("later")
        bare = replace(primitive, name="vendor.later.bare", block=None, inline={})
        module.eulerstack_memories = hookimpl(lambda: [bare])  # type: ignore[attr-defined]
        registry = Registry([*installed_sources(), module])
        (record,) = [record for record in registry.records() if record.package == "later"]
        assert record.state == "broken" and record.error is not None and "MEMORY_WORDS" in record.error.render(str)


class TestHead:
    """A head with matrices and a loss of its own."""

    def test_its_matrices_are_stored_and_there_is_no_lm_head(self, directory: Path) -> None:
        stored = load_file(directory / "model.safetensors")
        assert stored["head.up_proj.weight"].shape == (320, 8)
        assert not any("lm_head" in name for name in stored)
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        assert config["tie_word_embeddings"] is False

    def test_no_parallel_plan_names_a_matrix_that_is_not_there(self, directory: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)
        plans = (model._tp_plan, model._pp_plan, model._fsdp_plan, model.all_tied_weights_keys)
        assert not any("lm_head" in name for plan in plans for name in plan)
        shared = model_of(with_word("eulerstack_heads", None))
        assert "lm_head" in shared._tp_plan and "lm_head.weight" in shared.all_tied_weights_keys

    def test_it_may_be_offloaded(self, directory: Path, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)
        places = {"model": "cpu", "head": "disk"}
        offloaded = AutoModelForCausalLM.from_pretrained(
            directory, trust_remote_code=True, device_map=places, offload_folder=tmp_path / "offload"
        )
        with torch.no_grad():
            expected, found = (each(some_ids(), labels=some_ids()) for each in (model, offloaded))
        assert torch.equal(expected.logits, found.logits) and torch.equal(expected.loss, found.loss)

    def test_saving_again_keeps_its_matrices(self, directory: Path, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)
        assert model.get_output_embeddings() is model.head.up_proj
        model.save_pretrained(tmp_path / "again")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
        with torch.no_grad():
            assert torch.equal(model(some_ids()).logits, again(some_ids()).logits)

    def test_resizing_finds_the_matrix_that_it_names(self, directory: Path, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)
        model.resize_token_embeddings(330)
        with torch.no_grad():
            logits = model(some_ids()).logits
        assert logits.shape[-1] == 330
        assert torch.isfinite(model(some_ids(), labels=some_ids()).loss)
        model.save_pretrained(tmp_path / "resized")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "resized", trust_remote_code=True)
        with torch.no_grad():
            assert torch.equal(again(some_ids()).logits, logits)

    def test_a_head_that_names_no_matrix_refuses_to_be_resized(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = model_of(preset())
        monkeypatch.delattr(type(model.head), "get_output_embeddings")
        with pytest.raises(ValueError, match="ToyLowRankHead"):
            model.resize_token_embeddings(330)

    @pytest.mark.parametrize("tied", [True, False, None])
    def test_without_a_rank_it_projects_with_the_models_own_matrix(self, tied: bool | None) -> None:
        spec = with_word("eulerstack_heads", None)
        spec["embedding"]["tie_word_embeddings"] = tied
        model = model_of(spec)
        assert es.count_parameters(es.normalize_to_ir(spec)) == parameters(model)
        shared = model.lm_head.weight is model.model.embed_tokens.weight
        assert shared is (tied is not False)

    def test_sharing_the_embedding_with_a_head_of_its_own_is_a_contradiction(self) -> None:
        spec = preset()
        spec["embedding"]["tie_word_embeddings"] = True
        with pytest.raises(CompatibilityError) as caught:
            es.normalize_to_ir(spec)
        assert [problem.path for problem in caught.value.diagnostics] == ["embedding.tie_word_embeddings"]

    def test_its_loss_is_transformers_and_the_z_loss(self) -> None:
        model, ids = model_of(preset()), some_ids(batch=2)
        labels = ids.clone()
        labels[0, :4] = -100
        output = model(ids, labels=labels)
        logits, targets = output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        kept = targets != -100
        z = torch.logsumexp(logits[kept], dim=-1).square()
        expected = torch.nn.functional.cross_entropy(logits[kept], targets[kept]) + 0.001 * z.mean()
        torch.testing.assert_close(output.loss, expected)
        plain = with_word("eulerstack_heads", 8)
        plain["head"]["vendor.toy.low_rank"]["z_loss"] = 0.0
        assert model_of(plain)(ids, labels=labels).loss < output.loss

    def test_accumulated_gradients_are_those_of_one_large_batch(self) -> None:
        ids = some_ids(batch=2)
        labels = ids.clone()
        labels[0, :6] = -100
        count = (labels[:, 1:] != -100).sum()
        whole, parts = model_of(preset()), model_of(preset())
        whole(ids, labels=labels).loss.backward()
        for row in (0, 1):
            parts(ids[row : row + 1], labels=labels[row : row + 1], num_items_in_batch=count).loss.backward()
        for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-5)

    def test_no_family_takes_a_model_with_it(self, directory: Path, tmp_path: Path) -> None:
        with pytest.raises(CompatibilityError):
            export_checkpoint(directory, tmp_path / "out")

    def test_its_own_check_speaks_the_users_language(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "wide.yml"
        file.write_text(json.dumps(with_word("eulerstack_heads", 32)), encoding="utf-8")
        assert main(["--lang", "ko", "validate", "--preset", str(file)]) == 1
        assert "랭크 32는 병목이 아닙니다" in capfd.readouterr().err


@tries("eulerstack_messages")
@pytest.mark.parametrize(("language", "text"), [("ko", "문맥보다 깁니다"), ("en", "outlasts the context")])
def test_messages_are_translated_by_the_packages_catalog(
    language: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "late.yml"
    file.write_text(json.dumps(with_word("eulerstack_mixers", 65)), encoding="utf-8")
    assert main(["--lang", language, "validate", "--preset", str(file), "--report"]) == 0
    assert text in " ".join(capsys.readouterr().out.split())


@tries("eulerstack_rules")
def test_a_rule_finds_what_it_looks_for_and_says_where() -> None:
    from eulerstack.schema.realism import findings

    def found(half_life: float) -> list[str]:
        ir = es.normalize_to_ir(with_word("eulerstack_mixers", half_life))
        return [finding.path for finding in findings(ir) if finding.rule == "toy_forgets_late"]

    assert found(64) == [] and found(65) == ["layer_templates.ema.mixer.vendor.toy.ema.half_life"]


@tries("eulerstack_presets")
def test_a_preset_is_listed_and_found_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "list", "--json"]) == 0
    assert {"toy", "toy-ema"} <= set(re.findall(r"toy[a-z-]*", capsys.readouterr().out))
    assert main(["validate", "--preset", "toy", "--report"]) == 0


class TestTarget:
    """`compatibility.compile_target: vendor.toy.table`."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> Path:
        file = tmp_path / "table.yml"
        file.write_text(
            json.dumps({**preset(), "compatibility": {"compile_target": "vendor.toy.table"}}), encoding="utf-8"
        )
        return file

    @tries("eulerstack_targets")
    def test_the_command_has_it_fill_the_directory(
        self, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "out"
        mask = os.umask(0o027)
        try:
            code = main(["--lang", "en", "compile", str(spec), "--output-dir", str(output), "--seed", "7"])
        finally:
            os.umask(mask)
        assert code == 0
        assert {file.name for file in output.iterdir()} == {"layers.tsv", "seed.txt", "spec.yml"}
        assert (output / "layers.tsv").read_text().splitlines()[3].split("\t")[:2] == ["2", "attention"]
        assert (output / "seed.txt").read_text() == "7\n"
        assert (output / "spec.yml").read_bytes() == spec.read_bytes()
        assert output.stat().st_mode & 0o777 == 0o750 and (output / "seed.txt").stat().st_mode & 0o777 == 0o640
        said = capsys.readouterr().out
        assert "vendor.toy.table" in said and "from_pretrained" not in said

    def test_so_does_the_python_interface(self, spec: Path, tmp_path: Path) -> None:
        ir = es.normalize_to_ir(es.load(spec))
        assert es.compile_to_directory(ir, tmp_path / "out") == tmp_path / "out"
        assert (tmp_path / "out" / "seed.txt").read_text() == "0\n"
        assert es.normalize_to_ir(es.load(tmp_path / "out" / "spec.yml")) == ir

    def test_force_replaces_and_its_absence_refuses(self, spec: Path, tmp_path: Path) -> None:
        ir = es.normalize_to_ir(es.load(spec))
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("keep me")
        with pytest.raises(CompileError, match="--force"):
            es.compile_to_directory(ir, tmp_path / "out")
        assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]
        es.compile_to_directory(ir, tmp_path / "out", force=True)
        assert not (tmp_path / "out" / "mine").exists()

    @pytest.mark.parametrize(
        ("function", "said"),
        [
            ("lambda ir, folder, **words: (folder / 'half').write_text('x') and 1 / 0", "ZeroDivisionError"),
            ("lambda ir, folder, **words: None", "it wrote nothing"),
            ("lambda ir: None", "TypeError"),
            ("lambda ir, folder, **words: open('/nowhere/template')", "FileNotFoundError"),
            ("3", "is not a function"),
        ],
    )
    def test_one_that_fails_is_named_with_its_package_and_leaves_nothing(
        self, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, said: str
    ) -> None:
        import eulerstack_toy.target as target

        monkeypatch.setattr(target, "write_table", eval(function))
        es_ir = es.normalize_to_ir(es.load(spec))
        before = sorted(tmp_path.iterdir())
        with pytest.raises(CompileError) as caught:
            es.compile_to_directory(es_ir, tmp_path / "out")
        (problem,) = caught.value.diagnostics
        values = {key: str(value) for key, value in problem.what.values}
        assert values["package"] == "eulerstack-toy" and said in problem.what.render(lambda text: text)
        assert problem.path == "compatibility.compile_target" and sorted(tmp_path.iterdir()) == before

    def test_an_output_that_is_full_is_no_fault_of_its_package(
        self, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import eulerstack_toy.target as target

        def full(ir: Any, folder: Path, **words: Any) -> None:
            raise OSError(28, "No space left on device", str(folder / "layers.tsv"))

        monkeypatch.setattr(target, "write_table", full)
        with pytest.raises(CompileError, match="No space left") as caught:
            es.compile_to_directory(es.normalize_to_ir(es.load(spec)), tmp_path / "out")
        assert caught.value.diagnostics[0].path == str(tmp_path / "out")

    def test_one_that_is_not_there_is_named_before_anything_is_built(
        self, spec: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        import eulerstack_toy.target as target

        monkeypatch.delattr(target, "write_table")
        assert main(["--lang", "en", "compile", str(spec), "--validate-only"]) == 1
        error = capfd.readouterr().err
        assert "eulerstack-toy 0.1.0" in error and "write_table" in error

    def test_it_may_refuse(self, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import eulerstack_toy.target as target

        monkeypatch.setattr(target, "MOST_LAYERS", 2)
        with pytest.raises(CompileError, match="too long"):
            es.compile_to_directory(es.normalize_to_ir(es.load(spec)), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("option", [("--print-config",), ("--output", "config.json")])
    def test_the_runtime_configuration_is_that_of_huggingface_alone(
        self, spec: Path, option: tuple[str, ...], capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--lang", "en", "compile", str(spec), *option]) == 1
        assert "compile_target is vendor.toy.table" in capfd.readouterr().err
        assert main(["--lang", "en", "compile", str(spec), "--validate-only"]) == 0

    def test_a_model_in_memory_is_that_of_huggingface_whatever_the_target(self, spec: Path) -> None:
        model = es.compile_to_hf_model(es.normalize_to_ir(es.load(spec)))
        with torch.no_grad():
            assert torch.equal(model(some_ids()).logits, model_of(preset())(some_ids()).logits)


@tries("eulerstack_schema_fragments")
def test_a_word_added_to_a_section_is_kept_with_its_default_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "training_hints.vendor.toy.learning_rate"
    for given, expected in (({}, 0.001), ({"vendor.toy.learning_rate": 0.5}, 0.5)):
        ir = es.normalize_to_ir({**preset(), "training_hints": given})
        assert ir.extensions[path] == expected
        assert compile_ir(ir)["v1_extensions"][path] == expected
        file = tmp_path / "printed.yml"
        file.write_text(print_ir(ir), encoding="utf-8")
        assert es.normalize_to_ir(es.load(file)) == ir
    with pytest.raises(ValidationError) as caught:
        es.normalize_to_ir({**preset(), "training_hints": {"vendor.toy.learning_rate": 0}})
    assert caught.value.diagnostics[0].path == path
    assert main(["--lang", "en", "schema"]) == 0
    assert "vendor.toy.learning_rate" in capsys.readouterr().out


class TestNamespace:
    """`vendor.toy.telemetry`, wherever it stands."""

    @tries("eulerstack_namespaces")
    def test_its_value_is_completed_compiled_and_written(self, directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        compiled = {"endpoint": "https://figures.example", "every": 100, "run": "toy"}
        assert config["v1_extensions"]["vendor.toy.telemetry"] == compiled
        assert es.normalize_to_ir(preset()).extensions["vendor.toy.telemetry"] == {
            "endpoint": "https://figures.example",
            "every": 100,
        }

    def test_a_value_that_its_schema_forbids_is_a_validation_error(self) -> None:
        with pytest.raises(ValidationError) as caught:
            es.normalize_to_ir({**preset(), "vendor.toy.telemetry": {"endpoint": 5}})
        assert caught.value.diagnostics[0].path == "vendor.toy.telemetry.endpoint"

    @pytest.mark.parametrize("target", ["huggingface", "vendor.toy.table"])
    @pytest.mark.parametrize("place", ["", "layer_schedule[0]"])
    def test_what_the_handler_refuses_has_a_place_in_the_file(self, place: str, target: str, tmp_path: Path) -> None:
        bad = {"vendor.toy.telemetry": {"endpoint": "http://figures.example"}}
        spec = {**preset(), "compatibility": {"compile_target": target}}
        if place:
            spec["layer_schedule"][0].update(bad)
        else:
            spec.update(bad)
        file = tmp_path / "open.yml"
        file.write_text(json.dumps(spec, indent=1), encoding="utf-8")
        with pytest.raises(CompileError, match="unencrypted") as caught:
            es.compile_to_directory(es.normalize_to_ir(es.load(file)), tmp_path / "out")
        (problem,) = caught.value.diagnostics
        line = file.read_text().splitlines()[problem.location.line - 1]
        assert "vendor.toy.telemetry" in line and problem.path.endswith("vendor.toy.telemetry")
        assert not (tmp_path / "out").exists()
        assert main(["compile", str(file), "--validate-only"]) == 1

    @pytest.mark.parametrize("answer", ["{1, 2}", "float('nan')", "1 / 0"])
    def test_a_handler_that_fails_is_named_with_its_package(self, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
        import eulerstack_toy.words as words

        monkeypatch.setattr(words, "compile_telemetry", eval(f"lambda value, path, ir: {answer}"))
        with pytest.raises(CompileError, match="eulerstack-toy"):
            compile_ir(es.normalize_to_ir(preset()))

    def test_the_schema_shows_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--lang", "en", "schema"]) == 0
        out = capsys.readouterr().out
        assert "vendor.toy.telemetry" in out and "Where figures go." in out

    def test_compiling_it_imports_no_torch(self, site: Path) -> None:
        code = (
            "import sys; from eulerstack.cli import main\n"
            "assert main(['compile', '--preset', 'toy', '--print-config']) == 0\n"
            "assert main(['compile', '--preset', 'toy', '--validate-only']) == 0\n"
            "assert 'eulerstack_toy.words' in sys.modules\n"
            "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        )
        paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)


@tries("eulerstack_linears")
def test_a_way_to_compute_linear_layers_is_priced_and_in_the_export_where_a_key_asks_for_it(
    directory: Path, tmp_path: Path
) -> None:
    spec, plain = preset(), preset()
    del plain["vendor.toy.block_diagonal"]
    ir, model = es.normalize_to_ir(spec), model_of(spec)
    replaced = [name for name, module in model.named_modules() if type(module).__name__ == "ToyBlocks"]
    assert replaced == [f"model.layers.{place}.ffn.up_proj" for place in ("2", "3.layers.0", "4.streams.1.layers.0")]
    assert es.count_parameters(ir) == parameters(model) == parameters(model_of(plain)) - 3 * 32 * 48 * 3 // 4
    assert "class ToyBlocks(" in (directory / "modeling_eulerstack.py").read_text(encoding="utf-8")
    es.compile_to_directory(es.normalize_to_ir(plain), tmp_path / "plain")
    without = (tmp_path / "plain" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "ToyBlocks" not in without and "replace_linears" not in without


@tries("eulerstack_importers")
def test_a_checkpoint_of_its_family_is_imported_and_written_back(tmp_path: Path) -> None:
    config = {"model_type": "toy", "width": 16, "tokens": 40, "context": 32, "inner": 24, "layers": 2}
    config |= {"half_life": 4.0, "pieces": 2, "dtype": "float32"}
    shapes: dict[str, tuple[int, ...]] = {"tokens.weight": (40, 16), "last.weight": (16,)}
    for index in (0, 1):
        parts = {
            "gates": (32, 16),
            "out": (16, 16),
            "up": (16, 48),
            "down": (24, 16),
            "before": (16,),
            "between": (16,),
        }
        shapes |= {f"blocks.{index}.{name}.weight": shape for name, shape in parts.items()}
        shapes[f"blocks.{index}.decay_logit"] = (16,)
    generator = torch.Generator().manual_seed(5)
    tensors = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, source / "model.safetensors")
    assert main(["import", str(source), "--output-dir", str(tmp_path / "model")]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert torch.equal(model.model.layers[1].mixer.gate_proj.weight, tensors["blocks.1.gates.weight"][16:])
    assert torch.equal(model.model.layers[0].ffn.up_proj.weight, tensors["blocks.0.up.weight"].T)
    assert len(loaded_elsewhere(tmp_path / "model", [3, 1, 4], tmp_path)["tokens"]) == 11
    export_checkpoint(tmp_path / "model", tmp_path / "back", family="toy")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert set(back) == set(tensors) and all(torch.equal(back[name], tensors[name]) for name in tensors)
    written = json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))
    assert {key: written[key] for key in config} == config


class TestIntegrator:
    """A stage that evaluates one layer several times."""

    def test_every_evaluation_has_a_cache_slot_and_decoding_is_exact(self) -> None:
        model, ids = model_of(preset()), some_ids(batch=2)
        # Three of the slots are the memories' of the layers made from `ema`.
        assert len(model.config.layer_types) == 10 and model.config.num_hidden_layers == 6
        with torch.no_grad():
            first = model(ids[:, :6], use_cache=True)
            second = model(ids[:, 6:], past_key_values=first.past_key_values)
            both = torch.cat((first.logits, second.logits), 1)
            torch.testing.assert_close(both, model(ids, use_cache=False).logits, atol=1e-5, rtol=0)

    def test_its_own_check_is_made_where_it_stands(self) -> None:
        spec = preset()
        spec["layer_schedule"][2]["integrator"]["output"] = "hidden"
        with pytest.raises(CompatibilityError) as caught:
            es.normalize_to_ir(spec)
        assert [problem.path for problem in caught.value.diagnostics] == ["layer_schedule[2].integrator.output"]
