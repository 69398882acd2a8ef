"""The spec and the provenance of a model, carried along when a loaded model is saved again."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import cached_file, logging

SPEC_FILE = "spec.yml"
PROVENANCE_FILE = "provenance.json"

origin_logger = logging.get_logger(__name__)


def origin_file(config: Any, name: str) -> str | None:
    """The text of a file beside the config that was loaded, from its folder or its repository.

    None without one, or where it can't be read: nothing about it may keep a model from being saved.
    """
    source = getattr(config, "_name_or_path", "")
    if not source:
        return None
    try:
        if Path(source).is_dir():
            path = Path(source) / name
            return path.read_text(encoding="utf-8") if path.is_file() else None
        found = cached_file(
            source,
            name,
            revision=getattr(config, "_commit_hash", None),
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if found is None else Path(found).read_text(encoding="utf-8")
    # Where the name is neither a folder any more nor a repository, or the file is no text.
    except (OSError, ValueError):
        return None


def carry_origin(config: Any, directory: Any) -> None:
    """Writes the spec that a loaded model was compiled from, and where it comes from, into `directory`.

    The weights may have changed since, so the provenance says what was compiled, with the checksums of then, and what
    was changed on the way. Without a spec beside the loaded config, a warning says that config.json alone has the
    architecture. A config that was never loaded has nothing to carry.
    """
    if not getattr(config, "_name_or_path", ""):
        return
    spec, compiled = origin_file(config, SPEC_FILE), origin_file(config, PROVENANCE_FILE)
    if spec is None:
        origin_logger.warning(
            "%s has no %s, so the saved directory has none; `architecture` in config.json is complete",
            config._name_or_path,
            SPEC_FILE,
        )
        return
    (Path(directory) / SPEC_FILE).write_text(spec, encoding="utf-8")
    try:
        earlier = json.loads(compiled or "null")
    except ValueError:
        earlier = None
    provenance = {
        "format_version": 1,
        "saved_by": "save_pretrained",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "changed": changed_fields(config),
        # Of a directory that was itself saved again, what was compiled in the first place.
        "compiled": earlier.get("compiled", earlier) if isinstance(earlier, dict) else None,
    }
    text = json.dumps(provenance, indent=2, ensure_ascii=False) + "\n"
    (Path(directory) / PROVENANCE_FILE).write_text(text, encoding="utf-8")


def changed_fields(config: Any) -> dict[str, Any]:
    """What was changed since the model was compiled, and may be: a resized vocabulary, a head untied."""
    architecture = config.architecture
    said = {
        "vocab_size": architecture["model"]["vocab_size"],
        "tie_word_embeddings": architecture["embedding"]["tie_word_embeddings"],
    }
    return {name: getattr(config, name) for name, value in said.items() if getattr(config, name) != value}
