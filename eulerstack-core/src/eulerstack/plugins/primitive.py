"""What a plugin says about a primitive, without torch.

A declaration is data and small pure functions: its words in the language (JSON Schema), its price (`cost`), what it
keeps while decoding (`cache`), and the name of the class that computes it ("package.modules.file:Class"), which is
imported only when a model is built or exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from eulerstack.errors import Finding, Message

Kind = Literal["mixer", "ffn", "norm", "residual", "position", "head", "integrator", "merge", "memory", "linear"]
KINDS: tuple[Kind, ...] = (
    "mixer",
    "ffn",
    "norm",
    "residual",
    "position",
    "head",
    "integrator",
    "merge",
    "memory",
    "linear",
)

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Dims:
    """The sizes a primitive may depend on. Widths in channels, lengths in tokens."""

    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    vocab_size: int
    max_seq_len: int
    norm_eps: float
    positional: str


@dataclass(frozen=True)
class Cost:
    """The price of one primitive in one layer.

    `params` and `active_params` count scalars (active: those a single token touches). `flops_per_token` counts
    multiply-adds as 2 and excludes what grows with the context, which is `flops_per_token_per_context` (per token and
    per token of visible context); `decode_flops_per_token_per_context` is the same while decoding one token at a time
    from a cache, where that is computed otherwise (None: alike). `state_bytes_per_token` and `state_bytes_fixed` are
    the cache of one sequence, for a cache element of `element_bytes`; `state_window` caps the tokens that are kept
    (None: all of them). Of those and itself a token sees every `context_stride`-th, counted from itself.

    Where these numbers do not say it, functions do: `decode_flops` gives the FLOPs of a token that is decoded as the
    last of that many, `state_bytes` the bytes of the cache of one sequence after that many tokens;
    `state_bytes_per_token` and `state_bytes_fixed` are then what they come to in the long run.

    `prefill_flops` gives the FLOPs of a whole sequence of that many tokens processed at once, for a primitive that then
    computes in another form than token by token; None: the sum of what its tokens cost one at a time.

    `safe_params` of the `params` belong to norms and routers, which `dtype_policy: layered_safe` keeps in float32;
    those of norms as primitives count without being named.
    """

    params: int = 0
    active_params: int | None = None
    flops_per_token: int = 0
    flops_per_token_per_context: int = 0
    decode_flops_per_token_per_context: int | None = None
    state_bytes_per_token: int = 0
    state_bytes_fixed: int = 0
    state_window: int | None = None
    context_stride: int = 1
    prefill_flops: Callable[[int], int] | None = None
    decode_flops: Callable[[int], int] | None = None
    state_bytes: Callable[[int], int] | None = None
    safe_params: int = 0

    @property
    def decode_flops_per_context(self) -> int:
        """FLOPs per visible token of one token that is decoded from a cache."""
        decode = self.decode_flops_per_token_per_context
        return self.flops_per_token_per_context if decode is None else decode

    @property
    def active(self) -> int:
        """Parameters that one token touches."""
        return self.params if self.active_params is None else self.active_params


@dataclass(frozen=True)
class CacheLayer:
    """The cache slot of one mixer instance.

    `layer_type` is a transformers layer type: "full_attention", "sliding_attention" (then `window` is the number of
    visible tokens, the current one included), "eulerstack_dilated_<span>_<dilation>" (of the last `span` tokens every
    `dilation`-th is seen) or "eulerstack_state" (named tensors of fixed size).
    """

    layer_type: str
    window: int | None = None


@dataclass(frozen=True)
class Rotation:
    """The rotary tables by which a mixer turns its queries and keys; layers that ask for equal ones share one.

    `position` names the position whose class makes them, from `params`: `forward(hidden_states, position_ids)` ->
    (cos, sin), which the mixer's `forward` is given as `position_embeddings`.
    """

    position: str
    params: Params


@dataclass(frozen=True)
class Held:
    """Primitives of its own kind that a primitive holds, each under a name that the spec gives it.

    `word` is the word of the block under which they stand: a mapping from names to what a template writes for one
    primitive (`type`, the words beside it, its block). The core writes its schema from `summary`, `least` (how many
    there must be) and the primitives that are installed and hold none themselves. In the parameters each stands as
    {"type": …, "params": …}, complete, in the order of the names; everything else about them (their prices, checks,
    classes, cache slots, rotations) the core asks of them itself. `submodule`, with `{name}` in it, is where the class
    keeps each of its modules.
    """

    word: str
    summary: str
    least: int = 1
    submodule: str = "{name}"


@dataclass(frozen=True)
class HeadLayers:
    """Layers of a head's own, beside those of the schedule.

    The head has `modules` modules, each with `layers` layers of one template after another, `norms` norms of that
    template's kind, and what `cost` counts. `word` is the head's word that names the template, `template` its value.
    None of them takes part in computing the logits.
    """

    word: str
    template: str
    modules: int
    layers: int
    norms: int
    cost: Cost


Backend = Literal["sdpa", "flash", "flex", "serving"]


@dataclass(frozen=True)
class Features:
    """What the model around a mixer has to know about it.

    rotation        the rotary tables it wants; None: `position_embeddings` is None
    unsupported     implementations of attention that would leave a part of it out, and are therefore refused: "sdpa",
                    "flash", "flex", and "serving" for the engines that bring their own through transformers'
                    attention interface
    flash_kernels   the only flash kernels that know all of it; (): every one
    lazy_cache      its keys and values have other widths than head_dim, so that a static cache takes its shapes from
                    the first tokens
    """

    rotation: Rotation | None = None
    unsupported: tuple[Backend, ...] = ()
    flash_kernels: tuple[str, ...] = ()
    lazy_cache: bool = False


@dataclass(frozen=True)
class Linear:
    """A linear layer inside of a mixer or a feed-forward block, y = W x + b, which a namespace may have computed by
    other means.

    A primitive declares it with the `name` that its class gives the module ("q_proj"); it must be an nn.Linear of these
    sizes, called once for every token and looked into by nobody. To a namespace the core gives it under its name in the
    model ("model.layers.3.mixer.q_proj"), with the index of its layer, in the order of all layers that have weights,
    and the name of that layer's template. `role` is that of its weight, "hidden", "query" or "output".
    """

    name: str
    in_features: int
    out_features: int
    bias: bool = False
    role: str = "hidden"
    layer: int = 0
    template: str = ""


@dataclass(frozen=True)
class Replacement:
    """What computes a linear layer: a primitive of the kind "linear" by its name, and its parameters, complete.

    The primitive is asked with `in_features`, `out_features`, `bias` and `role` beside them, as its class is.
    """

    type: str
    params: Params


# Where a position acts: its class adds vectors to the embeddings, adds a bias to the attention scores of every head,
# or leaves all to the mixers that ask for it.
PositionPlace = Literal["embeddings", "scores", "mixers"]


@dataclass(frozen=True)
class Problem:
    """A contradiction that a primitive's `checks` found; `path` is relative to the primitive's own block."""

    path: str
    what: Message
    fix: Message
    see: str


@dataclass(frozen=True)
class Kernel:
    """A faster implementation of the same function, chosen at call time when `requires` import and the device fits."""

    name: str
    requires: tuple[str, ...]
    device: str = "cuda"


def _no_problems(dims: Dims, params: Params) -> Iterable[Problem]:
    return ()


def _unchanged(params: Params, model: Mapping[str, Any]) -> Params:
    return params


def _always(params: Params) -> bool:
    """True."""
    return True


def _never(params: Params) -> bool:
    """False."""
    return False


def _no_units(params: Params) -> int:
    return 0


def _one(params: Params) -> int:
    """1."""
    return 1


def _no_features(dims: Dims, params: Params) -> Features:
    return Features()


def _no_fields(params: Params, model: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


def _free(dims: Dims, params: Params, element_bytes: int) -> Cost:
    return Cost()


def _no_linears(dims: Dims, params: Params) -> tuple[Linear, ...]:
    return ()


@dataclass(frozen=True)
class Primitive:
    """A word of the language and what it means.

    name      as written in a spec: "attention", "vendor.acme.gla"
    kind      one of `KINDS`, that of the hook which returns it
    summary   what it is, in a line
    schema    JSON Schema (type object) of the parameter block; None when the type has no block
    block     the block's name where it isn't the type's; third parties' blocks always bear the type's name
    inline    JSON Schema properties written beside `type` itself ("activation" of an ffn)
    cost      (dims, params, element_bytes) -> Cost; exact, checked against the built module
    resolve   (params, model) -> params: fills what depends on other parts of the spec; `model` is the complete mapping
              {"model": …, "embedding": …, "training_hints": …}, and for a head {"last_template": …}, the template of
              the schedule's last layer; the result holds no "inherit" value any more
    checks    (dims, params) -> problems that make the spec a CompatibilityError
    holds     the primitives that it holds (mixers only, and not those that hold others). Each of them has a cache slot
              and features, it itself has none; `cost` and `state` are about what it adds to them
    cache     params -> CacheLayer (mixers and memories, and needed there)
    features  (dims, params) -> Features (mixers only)
    state     the words of a template's `state` block that are true of it ("kv_cache", "ssm_state")
    one_state   whether these words are names of one and the same state, of which a spec may use either
    lm_head     params -> whether the head projects with the model's `lm_head`, a matrix (vocab_size, d_model) that
              `tie_word_embeddings` may share with the embedding (heads only). Its parameters are counted by the core,
              all others and every FLOP of the head by `cost`
    copies      params -> how many layers with weights of their own a stage of it has (integrators only)
    evaluations params -> how often it evaluates each of them in one pass (integrators only); every evaluation has a
              cache slot of its own
    cached      whether those slots hold what decoding needs (integrators only). False where evaluations depend on
              tokens to come: a model that has such a stage keeps nothing while it decodes, and takes no cache
    one_graph   whether torch.compile makes one graph of it; False where what it computes depends on values, as the
              number of steps of an adaptive solver does. A model that has one doesn't promise a full graph
    head_layers  (dims, params) -> HeadLayers, for a head with layers of its own (heads only)
    norm_slots  (norms' position, whether there is an ffn) -> names of the norms of a layer (residuals only, and needed
              there)
    per_branch  `cost` is that of one of a layer's branches, of which there are two, or one where there is no ffn
              (residuals only)
    streams   params -> how many residual streams the layer has (residuals only); where that is more than one its class
              names the class of their ends, `stream_ends`, see docs/writing-a-plugin.md
    stream_ends_cost  (dims, params, element_bytes) -> Cost of those ends, of which each run of layers has one
    absent      the layer has no such part (ffns only); then there is no class, and `module` is ""
    routes    the module chooses what to compute for each token and reports what that adds to the loss (ffns only): it
              has `begin`, `finish`, `note_load` and `correct`, see docs/writing-a-plugin.md
    adds_loss  params -> whether the module reports what is added to the loss of a training pass (mixers only): it has
              `begin` and `finish`, as what `routes` has
    routed_units  params -> how many units (experts, branches) the module chooses among or weighs for each token; 0: it
              routes nothing. Where a spec asks for a usage probe its class makes one and has `begin` and `finish`
              (mixers and ffns), see docs/writing-a-plugin.md. The core counts the probe's parameters
    place     where a position acts (positions only)
    config_fields  (params, model) -> config.json's names, in transformers' spelling, for what the primitive says; the
              first layer speaks for all layers
    tensor_parallel  params -> {submodule: style}, as transformers' plans name them
    linears   (dims, params) -> the linear layers of its class that may be computed by other means, a tuple of `Linear`
              (mixers and ffns). Each counts in `cost` with its parameters and 2·in·out FLOPs per token
    module    "package.module:Class", imported only to build or export
    implementations  params -> "package.module:Class", where the class depends on the parameters; None: always `module`
    reference "package.module:function": a naive implementation for tests and readers
    requires  distributions without which the primitive can't run; a spec that uses it then is a CompatibilityError
    kernels   faster implementations of the same function, which the module chooses itself
    paper     where it was published, "arXiv:2405.21060"
    """

    name: str
    kind: Kind
    summary: str
    module: str = ""
    implementations: Callable[[Params], str] | None = None
    paper: str = ""
    schema: Mapping[str, Any] | None = None
    block: str | None = None
    inline: Mapping[str, Any] = field(default_factory=dict)
    cost: Callable[[Dims, Params, int], Cost] = _free
    resolve: Callable[[Params, Mapping[str, Any]], Params] = _unchanged
    checks: Callable[[Dims, Params], Iterable[Problem]] = _no_problems
    holds: Held | None = None
    cache: Callable[[Params], CacheLayer] | None = None
    features: Callable[[Dims, Params], Features] = _no_features
    state: tuple[str, ...] = ()
    one_state: bool = False
    lm_head: Callable[[Params], bool] = _always
    copies: Callable[[Params], int] = _one
    evaluations: Callable[[Params], int] = _one
    cached: bool = True
    one_graph: bool = True
    head_layers: Callable[[Dims, Params], HeadLayers] | None = None
    norm_slots: Callable[[str, bool], tuple[str, ...]] | None = None
    per_branch: bool = False
    streams: Callable[[Params], int] = _one
    stream_ends_cost: Callable[[Dims, Params, int], Cost] = _free
    absent: bool = False
    routes: bool = False
    adds_loss: Callable[[Params], bool] = _never
    routed_units: Callable[[Params], int] = _no_units
    place: PositionPlace = "mixers"
    config_fields: Callable[[Params, Mapping[str, Any]], Mapping[str, Any]] = _no_fields
    tensor_parallel: Callable[[Params], Mapping[str, str]] | None = None
    linears: Callable[[Dims, Params], tuple[Linear, ...]] = _no_linears
    kernels: tuple[Kernel, ...] = ()
    requires: tuple[str, ...] = ()
    reference: str = ""

    @property
    def block_name(self) -> str:
        """The key beside `type` under which a spec writes the parameters that `schema` describes."""
        return self.block or self.name

    def class_path(self, params: Params) -> str:
        """ "package.module:Class" of what computes this primitive with these parameters."""
        return self.module if self.implementations is None else self.implementations(params)

    def variant(self, params: Params) -> str:
        """The name of the class where it depends on the parameters, otherwise ""."""
        return "" if self.implementations is None else self.implementations(params).partition(":")[2]


@dataclass(frozen=True)
class SchemaFragment:
    """Words that a plugin adds to a section of the spec.

    place       "" (the top level), "model", "tokenizer_contract", "embedding", "head", "training_hints" or
                "compatibility"
    properties  JSON Schema of each word, by its name in a reserved namespace ("vendor.acme.budget")

    In the IR the words stand in `extensions` under their dotted paths ("model.vendor.acme.budget"), defaults filled in,
    and so they do in config.json's `v1_extensions`.
    """

    place: str
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class Namespace:
    """A handler of a reserved-namespace key ("vendor.acme.telemetry"), wherever in a spec it stands.

    key      the whole key
    schema   JSON Schema of its value; defaults inside it are filled in
    summary  what it is for, in a line
    compile  "package.module:function", called as function(value, path, ir) whenever the spec is compiled; it must be
             pure and import no torch. What it returns, JSON, stands under `path` in config.json's `v1_extensions`; None
             leaves the value there as it is. It refuses by raising a CompileError, whose path and place the core fills
             in. None: nothing is called.
    resolve  value -> value: writes a short form out, before defaults are filled in; what it gives must fit the schema
    replaces  (value, linears) -> {name: Replacement} of those that are computed by other means, of the linear layers
             that the key concerns: at the top level of a spec all that primitives declare, in a template or an entry
             of the schedule those of its layers that no key further in takes. The core prices what it names, exports
             its code, and refuses it together with what holds for matrices alone. It refuses by raising a
             CompatibilityError, whose path and place the core fills in
    """

    key: str
    schema: Mapping[str, Any]
    summary: str
    compile: str | None = None
    resolve: Callable[[Any], Any] | None = None
    replaces: Callable[[Any, Sequence[Linear]], Mapping[str, Replacement]] | None = None


@dataclass(frozen=True)
class Rule:
    """A realism rule.

    name     as findings and pages name it; no two plugins may have the same
    summary  what a model that keeps it is like
    check    ModelIR -> findings, for what is legal but seldom meant
    """

    name: str
    summary: str
    check: Callable[[Any], Iterable[Finding]]


@dataclass(frozen=True)
class PresetFolder:
    """A folder of `*.yml` specs, and of tokenizers in its subfolder `tokenizers/`; `path` is where it is."""

    path: str


@dataclass(frozen=True)
class Catalog:
    """Translations of a plugin's messages: a gettext domain and its locale folder."""

    domain: str
    folder: str


@dataclass(frozen=True)
class Target:
    """A back end of `compile`, named by a spec's `compatibility.compile_target`.

    summary   what it writes, in a line
    function  "package.module:function", imported when it is needed and called as
              function(ir, folder, *, seed, spec_text, spec_dir), which fills `folder` and returns nothing.

    ir         the ModelIR, complete and valid
    folder     an empty directory beside the output; the core renames it to the output when the function returns, and
               deletes it when the function raises, so the function needs to know neither the output's name nor --force
    seed       of everything random: the command's, or else the spec's
    spec_text  the source of the spec, or its canonical text where there is none
    spec_dir   the directory that relative names in the spec start from; None for a spec without a file

    Files made by `open` have the permissions of the user's umask, which the core gives to the folder. A function that
    can't write what the spec says raises a CompileError; anything else that it raises is reported as a fault of its
    package, but for an OSError about the folder, and so is a folder left empty.
    """

    name: str
    summary: str
    function: str


@dataclass(frozen=True)
class WeightRule:
    """One line of an importer's mapping: a module there, and the module or modules here that hold the same numbers.

    Names are modules': what follows them (".weight", ".bias") is the same on both sides, and `{i}` stands for a layer's
    index. With several names in `here`, the tensor there is theirs joined along axis 0, in this order (a fused
    projection). `transpose` says that matrices are stored [in, out] there and [out, in] here; vectors stay as they are.
    `tensors` says that the names are whole names of tensors, which may end otherwise on the two sides; `flat` that the
    tensor there is a vector, whatever the shape of the one here.
    """

    there: str
    here: tuple[str, ...]
    transpose: bool = False
    tensors: bool = False
    flat: bool = False


@dataclass(frozen=True)
class StackRule:
    """One tensor here, (experts, out, in), that lies there in a matrix for each expert.

    `here` and `there` are whole names of tensors; `{i}` stands for a layer's index, `{e}` for an expert's. With several
    names in `there`, an expert's part of the tensor here is theirs joined along axis 0, in this order, all of one
    height. `fused` is the name of a tensor there that is the same as the one here, in checkpoints saved so: it is read,
    and never written.
    """

    here: str
    there: tuple[str, ...]
    fused: str = ""


TensorRule = WeightRule | StackRule


def _same(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    return layer


@dataclass(frozen=True)
class Importer:
    """A HuggingFace family that specs can be made from, and written back to.

    model_type    as config.json names it
    architecture  the class that config.json's `architectures` names
    summary       the family in a few words
    to_spec       config.json -> spec with every word stated; raises CompatibilityError (paths are config.json's keys)
                  for what the language can't say
    to_config     ModelIR -> config.json that says the same as far as the family can; the caller holds it against the
                  IR by reading it back with `to_spec`
    rules         the one table by which tensors are converted, in both directions; a function of the ModelIR where it
                  depends on the layers
    drop          tensors there that hold no information (`{i}` is a layer's index)
    refused       (names of tensors there, what they are, what to do about them): parts of a checkpoint that the
                  language has no words for
    prefix        the base model's name there, absent from tensors of a checkpoint saved without a head
    pad_learns    whether the class trains the pad token's embedding; elsewhere, as here, config.json's pad_token_id
                  exempts it
    canonical     {"mixer": …, "ffn": …, …} of one layer -> the same with one word for each meaning, so that equal
                  functions compare equal
    """

    model_type: str
    architecture: str
    summary: str
    to_spec: Callable[[Mapping[str, Any]], dict[str, Any]]
    to_config: Callable[[Any], dict[str, Any]]
    rules: tuple[TensorRule, ...] | Callable[[Any], tuple[TensorRule, ...]]
    drop: tuple[str, ...] = ()
    refused: tuple[tuple[tuple[str, ...], Message, Message], ...] = ()
    prefix: str = ""
    pad_learns: bool = False
    canonical: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _same

    def rules_for(self, ir: Any) -> tuple[TensorRule, ...]:
        """The table for the model of `ir`."""
        return self.rules(ir) if callable(self.rules) else self.rules
