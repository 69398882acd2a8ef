"""A compiled directory: self-contained, offline, the same numbers, only what the spec uses."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import eulerstack as es
from eulerstack.compiler.compile import compile_ir
from eulerstack.errors import CompileError
from eulerstack.ir.printer import print_ir
from eulerstack.testing.exporting import compare_elsewhere, elsewhere, lively_directory
from tests.model.specs import changed, enliven, tiny_spec
from tests.model.variants import NORM, RESIDUAL, VARIANTS

LOADED = [
    *("plain", "mixed_windows", "alibi_window", "learned", "parallel_sandwich", "softcap"),
    *("mamba1", "mamba2", "mamba_and_attention", "gated_hybrid", "width_hybrid"),
    *("branched_hybrid", "discrete_hidden", "ode_rk4_branched"),
]
PYTHON_OF_OLDEST = os.environ.get("EULERSTACK_OLDEST_PYTHON")


def offline(directory: Path, tmp_path: Path, again: bool = False, python: str = sys.executable) -> dict:
    """What a process without eulerstack computes from a directory."""
    return elsewhere(python).load(directory, again=tmp_path / "again" if again else None)


@pytest.mark.parametrize("name", LOADED)
def test_a_directory_loads_without_eulerstack_and_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = lively_directory(VARIANTS[name], tmp_path / "model")
    compare_elsewhere(model, tmp_path / "model", tmp_path / "again")


@pytest.mark.skipif(
    PYTHON_OF_OLDEST is None, reason="EULERSTACK_OLDEST_PYTHON names no interpreter; tox -e oldest does"
)
@pytest.mark.parametrize("name", LOADED)
def test_a_directory_generates_the_same_tokens_on_the_oldest_transformers(name: str, tmp_path: Path) -> None:
    model = lively_directory(VARIANTS[name], tmp_path / "model")
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = offline(tmp_path / "model", tmp_path, again=True, python=PYTHON_OF_OLDEST)
    with torch.no_grad():
        assert (found["logits"] - model(ids).logits).abs().max() < 1e-5
    assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))


def test_a_model_saved_from_memory_loads_without_eulerstack(tmp_path: Path) -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(tiny_spec()))
    enliven(model)
    model.save_pretrained(tmp_path / "model")
    found = offline(tmp_path / "model", tmp_path)
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    with torch.no_grad():
        assert torch.equal(found["logits"], model(ids).logits)


def spec_ir(directory: Path) -> object:
    return es.normalize_to_ir(es.load(directory / "spec.yml"))


def test_a_directory_saved_again_still_gives_its_spec_and_says_what_was_compiled(tmp_path: Path) -> None:
    lively_directory(VARIANTS["plain"], tmp_path / "model")
    offline(tmp_path / "model", tmp_path, again=True)
    model, again = tmp_path / "model", tmp_path / "again"
    assert (again / "spec.yml").read_bytes() == (model / "spec.yml").read_bytes()
    provenance = json.loads((again / "provenance.json").read_text())
    compiled = json.loads((model / "provenance.json").read_text())
    assert provenance["saved_by"] == "save_pretrained" and provenance["changed"] == {}
    assert provenance["compiled"] == compiled and "sha256" not in provenance
    loaded = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True)
    loaded.resize_token_embeddings(60)
    loaded.save_pretrained(tmp_path / "third")
    third = json.loads((tmp_path / "third" / "provenance.json").read_text())
    assert third["compiled"] == compiled and third["changed"] == {"vocab_size": 60}
    assert spec_ir(tmp_path / "third") == spec_ir(model)


@pytest.mark.parametrize("trained", [False, True])
def test_a_model_saved_where_eulerstack_is_installed_gives_its_spec(trained: bool, tmp_path: Path) -> None:
    from eulerstack.hf.models import EulerStackForCausalLM

    ir = es.normalize_to_ir(tiny_spec())
    model = es.compile_to_hf_model(ir)
    if trained:
        es.compile_to_directory(ir, tmp_path / "model", spec_text="# mine\n" + print_ir(ir))
        model = EulerStackForCausalLM.from_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "again")
    assert spec_ir(tmp_path / "again") == ir
    assert (tmp_path / "again" / "spec.yml").read_text(encoding="utf-8").startswith("# mine\n") is trained
    assert json.loads((tmp_path / "again" / "provenance.json").read_text())["saved_by"] == "save_pretrained"


def test_a_model_that_lost_its_spec_is_saved_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "model")
    (tmp_path / "model" / "spec.yml").unlink()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    with caplog.at_level("WARNING"):
        logging.getLogger("transformers").addHandler(caplog.handler)
        logging.getLogger(type(model.config).__module__).addHandler(caplog.handler)
        model.save_pretrained(tmp_path / "again")
    assert "has no spec.yml" in caplog.text and not (tmp_path / "again" / "spec.yml").exists()


def test_a_damaged_provenance_keeps_no_model_from_being_saved(tmp_path: Path) -> None:
    es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "model")
    (tmp_path / "model" / "provenance.json").write_text("no json")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "provenance.json").read_text())["compiled"] is None
    assert spec_ir(tmp_path / "again") == es.normalize_to_ir(tiny_spec())


def test_memory_and_directory_hold_the_same_weights_in_the_declared_dtype(tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        ir = es.normalize_to_ir(changed(tiny_spec(), {"model.dtype": dtype}))
        es.compile_to_directory(ir, tmp_path / dtype, seed=3)
        state = es.compile_to_hf_model(ir, seed=3).state_dict()
        stored = load_file(tmp_path / dtype / "model.safetensors")
        assert all(
            torch.equal(tensor, state[name]) and str(tensor.dtype) == f"torch.{dtype}"
            for name, tensor in stored.items()
        )
        assert set(state) - set(stored) == {"lm_head.weight"}
        assert AutoModelForCausalLM.from_pretrained(tmp_path / dtype, trust_remote_code=True).dtype == getattr(
            torch, dtype
        )


def digests(directory: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(directory.iterdir())}


@pytest.mark.parametrize("scheme", ["normal", "orthogonal"])
def test_the_same_spec_and_seed_give_the_same_bytes_whatever_the_threads(scheme: str, tmp_path: Path) -> None:
    ir = es.normalize_to_ir(changed(tiny_spec(), {"training_hints.init": scheme}))
    es.compile_to_directory(ir, tmp_path / "one", seed=5)
    torch.manual_seed(99)
    torch.set_num_threads(2)
    try:
        es.compile_to_directory(ir, tmp_path / "two", seed=5)
    finally:
        torch.set_num_threads(1)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    es.compile_to_directory(ir, tmp_path / "three", seed=6)
    assert digests(tmp_path / "one")["model.safetensors"] != digests(tmp_path / "three")["model.safetensors"]


def test_compiling_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    es.compile_to_hf_model(es.normalize_to_ir(tiny_spec()))
    assert torch.equal(torch.rand(3), expected)


def test_weights_of_other_layers_stay_when_one_layer_changes() -> None:
    wide = tiny_spec()
    wide["layer_templates"]["biased"] = {
        "mixer": {"type": "attention", "attention": {"qkv_bias": True}},
        "ffn": {"type": "mlp"},
    }
    wide["layer_schedule"] = [{"template": "decoder"}, {"template": "biased"}, {"template": "decoder"}]
    before = es.compile_to_hf_model(es.normalize_to_ir(tiny_spec())).state_dict()
    after = es.compile_to_hf_model(es.normalize_to_ir(wide)).state_dict()
    same = [name for name in before if not name.startswith("model.layers.1.")]
    assert all(torch.equal(before[name], after[name]) for name in same)


def test_provenance_lists_the_digest_of_every_other_file(tmp_path: Path) -> None:
    es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "model")
    provenance = json.loads((tmp_path / "model" / "provenance.json").read_text())
    found = digests(tmp_path / "model")
    found.pop("provenance.json")
    assert provenance["sha256"] == found
    assert provenance["versions"]["torch"] == torch.__version__
    assert provenance["seed"] == 0


def test_the_export_holds_only_the_primitives_that_the_spec_uses(tmp_path: Path) -> None:
    es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "rope")
    text = (tmp_path / "rope" / "modeling_eulerstack.py").read_text()
    for used in (
        "class Attention(",
        "class GatedMLP(",
        "class RMSNorm(",
        "class RotaryEmbedding(",
        "class SequentialResidual(",
    ):
        assert used in text
    for unused in ("class MLP(", "class LayerNorm(", "alibi", "class LearnedPositions(", "class ParallelResidual("):
        assert unused not in text
    other = changed(
        tiny_spec(),
        {
            "embedding.positional": "alibi",
            NORM: {"type": "layernorm"},
            RESIDUAL: {"type": "parallel"},
            "layer_templates.decoder.ffn": {"type": "mlp"},
        },
    )
    es.compile_to_directory(es.normalize_to_ir(other), tmp_path / "alibi")
    text = (tmp_path / "alibi" / "modeling_eulerstack.py").read_text()
    for unused in ("class GatedMLP(", "class RotaryEmbedding(", "class SequentialResidual("):
        assert unused not in text
    assert "# " in text and "Press et al. 2021" in text


def test_an_exported_file_imports_nothing_of_eulerstack(tmp_path: Path) -> None:
    for name, spec in VARIANTS.items():
        es.compile_to_directory(es.normalize_to_ir(spec), tmp_path / name)
        text = (tmp_path / name / "modeling_eulerstack.py").read_text()
        compile(text, name, "exec")
        assert not [
            line for line in text.splitlines() if line.lstrip().startswith(("from eulerstack", "import eulerstack"))
        ]


def test_the_config_speaks_the_ecosystems_names(tmp_path: Path) -> None:
    es.compile_to_directory(es.normalize_to_ir(VARIANTS["mixed_windows"]), tmp_path / "model")
    config = AutoConfig.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert (config.hidden_size, config.num_hidden_layers, config.n_layers, config.num_key_value_heads) == (36, 4, 4, 1)
    assert config.layer_types == ["sliding_attention", "full_attention", "eulerstack_sliding_9", "sliding_attention"]
    assert config.sliding_window == 4
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}


def test_a_config_field_that_contradicts_the_architecture_is_refused(tmp_path: Path) -> None:
    es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "model")
    for field, value in (
        ("num_hidden_layers", 2),
        ("hidden_size", 40),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 5.0}),
    ):
        with pytest.raises(ValueError, match=field if field != "num_hidden_layers" else "layer"):
            AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True, **{field: value})


def test_reserved_namespaces_reach_the_config(tmp_path: Path) -> None:
    spec = {**tiny_spec(), "experimental.online": {"source": "x"}, "vendor.acme.telemetry": {"endpoint": "y"}}
    es.compile_to_directory(es.normalize_to_ir(spec), tmp_path / "model")
    config = AutoConfig.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert config.v1_extensions == {"experimental.online": {"source": "x"}, "vendor.acme.telemetry": {"endpoint": "y"}}


def test_resizing_the_vocabulary_keeps_softcap_and_scale_and_reloads(tmp_path: Path) -> None:
    model = lively_directory(VARIANTS["capped_logits"], tmp_path / "model")
    model.resize_token_embeddings(60)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        logits = model(ids).logits
    assert logits.shape[-1] == 60 and logits.abs().max() <= 3.0
    model.save_pretrained(tmp_path / "resized")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "resized", trust_remote_code=True)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, logits)


class TestOutputs:
    """Nothing half-written, nothing overwritten unasked."""

    def test_a_directory_that_is_not_empty_is_refused_without_force(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "mine.txt").write_text("keep me")
        ir = es.normalize_to_ir(tiny_spec())
        with pytest.raises(CompileError) as caught:
            es.compile_to_directory(ir, tmp_path / "model")
        assert "--force" in str(caught.value)
        assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["mine.txt"]
        es.compile_to_directory(ir, tmp_path / "model", force=True)
        assert not (tmp_path / "model" / "mine.txt").exists()
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model"]

    def test_an_empty_directory_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "model")
        assert (tmp_path / "model" / "config.json").exists()

    def test_a_file_in_the_way_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "model").write_text("keep me")
        with pytest.raises(CompileError):
            es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "model", force=True)
        assert (tmp_path / "model").read_text() == "keep me"

    def test_a_parent_that_is_a_file_is_a_compile_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(CompileError):
            es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "file" / "model")

    def test_a_failure_half_way_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from eulerstack.compiler import writer

        def failing(*arguments):
            yield from list(original(*arguments))[:5]
            raise OSError(28, "No space left on device")

        original = writer.iter_initial
        monkeypatch.setattr(writer, "iter_initial", failing)
        with pytest.raises(CompileError, match="No space left"):
            es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "model")
        assert list(tmp_path.iterdir()) == []

    def test_missing_foreign_and_misshapen_weights_are_compile_errors(self, tmp_path: Path) -> None:
        from eulerstack.compiler.initial import build_on_meta, iter_initial
        from eulerstack.compiler.writer import write_directory

        ir = es.normalize_to_ir(tiny_spec())
        whole = [(name, tensor.clone()) for name, tensor in iter_initial(build_on_meta(ir), 0, "float32")]
        for wrong in (
            whole[1:],
            [*whole, ("extra", torch.zeros(1))],
            [(whole[0][0], torch.zeros(2)), *whole[1:]],
            [*whole, whole[0]],
        ):
            with pytest.raises(CompileError):
                write_directory(ir, tmp_path / "model", wrong, seed=None)
            assert list(tmp_path.iterdir()) == []

    def test_shards_with_an_index_load_like_one_file(self, tmp_path: Path) -> None:
        from eulerstack.compiler.initial import build_on_meta, iter_initial
        from eulerstack.compiler.weights import write_weights
        from eulerstack.compiler.writer import expected_weights

        ir = es.normalize_to_ir(tiny_spec())
        es.compile_to_directory(ir, tmp_path / "model")
        whole = load_file(tmp_path / "model" / "model.safetensors")
        (tmp_path / "model" / "model.safetensors").unlink()
        write_weights(
            tmp_path / "model",
            iter_initial(build_on_meta(ir), 0, "float32"),
            expected_weights(build_on_meta(ir)),
            "float32",
            max_shard_bytes=20_000,
        )
        assert len(list((tmp_path / "model").glob("*.safetensors"))) > 2
        index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text(encoding="utf-8"))
        assert index["metadata"]["total_size"] == sum(each.numel() * each.element_size() for each in whole.values())
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in whole.items())

    def test_there_may_be_more_shards_than_a_process_may_open_files(self, tmp_path: Path) -> None:
        from eulerstack.compiler.weights import write_weights

        resource = pytest.importorskip("resource")
        weights = {f"weight_{index}": torch.full((3,), float(index)) for index in range(60)}
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with open(os.devnull) as probe:
            resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno() + 20, hard))
        try:
            found = write_weights(tmp_path, weights.items(), dict.fromkeys(weights, (3,)), "float32", max_shard_bytes=1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        files = sorted(tmp_path.glob("*.safetensors"))
        assert found == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        loaded = [load_file(file) for file in files]
        assert len(loaded) == 60 and all(torch.equal(weights[name], each[name]) for each in loaded for name in each)


@pytest.mark.parametrize(
    ("windows", "named"),
    [
        ((9, 4, 9), 9),
        ((4, 9, 4), 4),
        ((9, None, 4, 4, None, None), 4),
        # Of windows that are equally frequent, the smallest.
        ((9, 4), 4),
        ((4, 9), 4),
        ((None, None), None),
    ],
)
def test_the_most_frequent_window_is_the_one_that_transformers_knows(
    windows: tuple[int | None, ...], named: int | None
) -> None:
    config = compile_ir(es.normalize_to_ir(with_windows(*windows)))
    own = {None: "full_attention", named: "sliding_attention" if named else "full_attention"}
    assert config["sliding_window"] == named
    assert config["layer_types"] == [own.get(window, f"eulerstack_sliding_{window}") for window in windows]


def with_windows(*windows: int | None) -> dict[str, Any]:
    """The tiny spec with one layer for each of these windows."""
    templates = {
        f"window_{window}": {
            "mixer": {"type": "attention", "attention": {"window": window}},
            "ffn": {"type": "gated_mlp"},
        }
        for window in windows
    }
    schedule = [{"template": f"window_{window}"} for window in windows]
    return tiny_spec(layer_templates=templates, layer_schedule=schedule)


@pytest.mark.parametrize(
    "name", ['"""\nimport os\nos.environ["EULERSTACK_INJECTED"] = "1"\n"""', 'a"""b', "back\\slash", "줄\n바꿈", "'''"]
)
def test_a_models_name_never_becomes_code(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EULERSTACK_INJECTED", raising=False)
    es.compile_to_directory(es.normalize_to_ir(changed(tiny_spec(), {"model.name": name})), tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert "EULERSTACK_INJECTED" not in os.environ
    assert model.config.architecture["model"]["name"] == name


class TestTokenizers:
    """A tokenizer is copied when it can be found; nothing of its own is ever run."""

    def test_a_tokenizers_own_code_is_not_run(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = tmp_path / "evil"
        folder.mkdir()
        config = {"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["tok.X", None]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "tok.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass X: pass\n")
        self.compile_with("evil", tmp_path)
        assert not (tmp_path / "ran").exists()
        assert "can't be used" in caplog.text or "쓸 수 없" in caplog.text or "evil" in caplog.text

    @pytest.mark.parametrize("text", ['{"model": 5}', "no json", "{}"])
    def test_a_damaged_tokenizer_is_left_out_with_a_note(self, text: str, tmp_path: Path, caplog) -> None:
        folder = tmp_path / "damaged"
        folder.mkdir()
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        (folder / "tokenizer.json").write_text(text)
        self.compile_with("damaged", tmp_path)
        assert "damaged" in caplog.text

    def test_the_shipped_tokenizer_is_copied_and_names_its_tokens(self, tmp_path: Path) -> None:
        self.compile_with("bpe-32k", tmp_path, {"model.vocab_size": 32000, "tokenizer_contract.add_bos": True})
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", trust_remote_code=True)
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        assert config["bos_token_id"] == tokenizer.bos_token_id
        assert tokenizer("hello").input_ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(tokenizer("안녕 hello").input_ids, skip_special_tokens=True) == "안녕 hello"

    @pytest.mark.parametrize("add_bos", [False, True])
    @pytest.mark.parametrize("add_eos", [False, True])
    def test_the_compiled_tokenizer_frames_a_text_as_the_contract_says(
        self, tmp_path: Path, add_bos: bool, add_eos: bool
    ) -> None:
        contract = {"tokenizer_contract.add_bos": add_bos, "tokenizer_contract.add_eos": add_eos}
        self.compile_with("bpe-32k", tmp_path, {"model.vocab_size": 32000, **contract})
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", trust_remote_code=True)
        plain = tokenizer("안녕 hello", add_special_tokens=False).input_ids
        begin, end = [tokenizer.bos_token_id] * add_bos, [tokenizer.eos_token_id] * add_eos
        assert plain and not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(plain)
        assert tokenizer("안녕 hello").input_ids == [*begin, *plain, *end]
        assert tokenizer(["안녕 hello", "x"]).input_ids[0] == [*begin, *plain, *end]

    @pytest.mark.parametrize(
        ("rows", "changes", "path"),
        [
            (32000, {"tokenizer_contract.pad_token": "<fill>"}, "tokenizer_contract.pad_token"),
            (2, {}, "tokenizer_contract.pad_token"),
            (1, {"tokenizer_contract.add_eos": True}, "tokenizer_contract.add_eos"),
        ],
    )
    def test_a_token_of_every_batch_without_an_embedding_is_refused(
        self, rows: int, changes: dict, path: str, tmp_path: Path
    ) -> None:
        with pytest.raises(CompileError) as caught:
            self.compile_with("bpe-32k", tmp_path, {"model.vocab_size": rows, **changes})
        assert path in [problem.path for problem in caught.value.diagnostics]
        assert list(tmp_path.iterdir()) == []
        # The fix that the message names works.
        tokens = dict(caught.value.diagnostics[0].fix.values)["tokens"]
        self.compile_with("bpe-32k", tmp_path, {"model.vocab_size": tokens, **changes})
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
        batch = tokenizer(["one", "one two three"], padding=True, return_tensors="pt")
        assert model(**{key: batch[key] for key in ("input_ids", "attention_mask")}).logits.isfinite().all()

    @staticmethod
    def compile_with(name: str, tmp_path: Path, changes: dict | None = None) -> None:
        spec = changed(tiny_spec(), {"tokenizer_contract.pretrained": name, **(changes or {})})
        es.compile_to_directory(es.normalize_to_ir(spec), tmp_path / "model", spec_dir=tmp_path)


def test_layers_and_head_may_be_offloaded(tmp_path: Path) -> None:
    model = lively_directory(VARIANTS["untied"], tmp_path / "model")
    ids = torch.arange(9)[None]
    for part in ("lm_head", "model.layers.1"):
        places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_embs": "cpu", "head": "cpu"}
        places |= {f"model.layers.{index}": "cpu" for index in range(3)} | {"lm_head": "cpu", part: "disk"}
        offloaded = AutoModelForCausalLM.from_pretrained(
            tmp_path / "model", trust_remote_code=True, device_map=places, offload_folder=tmp_path / "offload"
        )
        with torch.no_grad():
            assert torch.allclose(offloaded(ids).logits, model(ids).logits, atol=1e-6)
