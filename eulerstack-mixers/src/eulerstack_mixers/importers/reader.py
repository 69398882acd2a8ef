"""Typed reading of a HuggingFace config.json, with every problem of it reported together.

Paths in the diagnostics are config.json's own keys; whoever has the file's text turns them into lines and columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from eulerstack.errors import Collector, Message, msg

SEE_VALUES = "reference/import.md#values"
SEE_UNSUPPORTED = "reference/import.md#unsupported-features"
MAX_LAYERS = 100_000
MAX_SIZE = 2**30
DTYPES = ("bfloat16", "float16", "float32")
LAYER_TYPES = ("full_attention", "sliding_attention")


class ConfigReader:
    """A config.json over its class's defaults.

    Getters record a problem and return a stand-in when a value is of the wrong type; `finish` raises them all.
    """

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]):
        self.config: dict[str, Any] = {**defaults, **config}
        self.problems = Collector("CompatibilityError")

    def __getitem__(self, key: str) -> Any:
        return self.config.get(key)

    def finish(self) -> None:
        """Raises CompatibilityError when anything was recorded."""
        self.problems.raise_if_any()

    def sound(self, *keys: str) -> bool:
        """Whether nothing was recorded of these keys, so that their values are the file's own."""
        return not any(problem.path in keys for problem in self.problems.diagnostics)

    def unsupported(self, path: str, what: Message, fix: Message) -> None:
        """Records a feature that the language, or the family's own class, has no words for."""
        self.problems.add(path, what, fix, SEE_UNSUPPORTED)

    def wrong(self, path: str, value: Any, expected: Message) -> None:
        """Records a value of the wrong type or range."""
        what = msg("is {value}, but must be {expected}", value=_short(value), expected=expected)
        self.problems.add(path, what, msg("correct `{key}` in config.json", key=path), SEE_VALUES)

    def require(self, key: str, wanted: Any, reason: Message) -> None:
        """Records a problem unless `key` has the one value that can be imported; null and absence count as that."""
        value = self.config.get(key)
        if value is not None and value != wanted:
            self.unsupported(
                key,
                msg("{value} can't be imported: {reason}", value=_short(value), reason=reason),
                msg("import a checkpoint whose `{key}` is {wanted}", key=key, wanted=_short(wanted)),
            )

    def integer(self, key: str, minimum: int = 1, maximum: int = MAX_SIZE) -> int:
        """A whole number from `minimum` to `maximum`."""
        value = self.config.get(key)
        if is_integer(value) and minimum <= value <= maximum:
            return int(value)
        self.wrong(key, value, msg("a whole number from {minimum} to {maximum}", minimum=minimum, maximum=maximum))
        return max(minimum, 1)

    def layers(self, key: str) -> int:
        """A number of layers, bounded by what the language allows."""
        return self.integer(key, maximum=MAX_LAYERS)

    def optional_integer(self, key: str) -> int | None:
        """A whole number of at least 1, or None for null and absence."""
        return None if self.config.get(key) is None else self.integer(key)

    def positive(self, key: str) -> float:
        """A number above zero."""
        value = self.config.get(key)
        if is_number(value) and value > 0:
            return float(value)
        self.wrong(key, value, msg("a number above 0"))
        return 1.0

    def optional_positive(self, key: str) -> float | None:
        """A number above zero, or None for null and absence."""
        return None if self.config.get(key) is None else self.positive(key)

    def probability(self, key: str) -> float:
        """A number in [0, 1); null counts as 0."""
        value = self.config.get(key)
        if value is None:
            return 0.0
        if is_number(value) and 0 <= value < 1:
            return float(value)
        self.wrong(key, value, msg("a number of at least 0 and below 1"))
        return 0.0

    def boolean(self, key: str) -> bool:
        """true or false; null counts as false."""
        value = self.config.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.wrong(key, value, msg("true or false"))
        return False

    def choice(self, key: str, meanings: Mapping[str, str]) -> str:
        """The language's word for the value of `key`."""
        value = self.config.get(key)
        if isinstance(value, str) and value in meanings:
            return meanings[value]
        self.unknown(key, value, meanings)
        return next(iter(meanings.values()))

    def unknown(self, path: str, value: Any, known: Iterable[str]) -> None:
        """Records a value that is not among the `known` ones."""
        self.unsupported(
            path,
            msg("{value} is not among what can be imported: {known}", value=_short(value), known=", ".join(known)),
            msg("import a checkpoint whose `{key}` is one of these", key=path),
        )

    def dtype(self) -> str | None:
        """The declared dtype, under its new name or its old one; None where the file leaves it to the weights."""
        key = "dtype" if self.config.get("dtype") is not None else "torch_dtype"
        value = self.config.get(key)
        if value is None or value == "auto":
            return None
        name = str(value).removeprefix("torch.")
        if name in DTYPES:
            return name
        self.wrong(key, value, msg("one of {names}", names=", ".join(DTYPES)))
        return None

    def layer_types(self, n_layers: int) -> tuple[str, ...] | None:
        """The attention type of each layer, or None where config.json has no `layer_types`."""
        value = self.config.get("layer_types")
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != n_layers:
            self.wrong("layer_types", value, msg("a list of {count} layer types", count=n_layers))
            return (LAYER_TYPES[0],) * n_layers
        for index, name in enumerate(value):
            if name not in LAYER_TYPES:
                self.unknown(f"layer_types[{index}]", name, LAYER_TYPES)
        return tuple(str(name) for name in value)


def is_number(value: Any) -> TypeGuard[int | float]:
    """A finite JSON number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def is_integer(value: Any) -> TypeGuard[int]:
    """A JSON number without a fraction; 24.0 counts as none, as in transformers."""
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = text or (f'"{value}"' if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:57] + "…"
