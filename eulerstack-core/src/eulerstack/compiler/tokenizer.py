"""Finds the tokenizer that a spec names and puts it into a model directory.

A name is looked up as a path relative to the spec, then among the tokenizers that presets ship, then in the
HuggingFace cache; nothing is downloaded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eulerstack.errors import CompileError, Diagnostic, msg
from eulerstack.ir.types import ModelIR
from eulerstack.plugins.manager import get_registry

logger = logging.getLogger(__name__)


SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
TRANSITION_TOKEN = "transition_token_id"


def find_tokenizer(name: str, spec_dir: Path | None) -> Path | None:
    """The folder of tokenizer `name`, or None when it isn't on this machine outside the HuggingFace cache."""
    shipped = [Path(folder.path) / "tokenizers" / name for folder in get_registry().presets()]
    candidates = [(spec_dir or Path()) / name, *shipped]
    return next((folder for folder in candidates if (folder / "tokenizer_config.json").is_file()), None)


def load_tokenizer(name: str, spec_dir: Path | None) -> Any:
    """Tokenizer `name`, found as this module says.

    Errors: whatever transformers raises where there is none, or a broken one.
    """
    from transformers import AutoTokenizer

    found = find_tokenizer(name, spec_dir)
    # Never a tokenizer's own code: a spec is data, and compiling it runs nothing that came with it.
    return AutoTokenizer.from_pretrained(str(found) if found else name, local_files_only=True, trust_remote_code=False)


def keep_contract(tokenizer: Any, ir: ModelIR) -> None:
    """Makes a tokenizer do what the spec's `tokenizer_contract` and `transition` say."""
    contract, transition = ir.tokenizer_contract, ir.transition.get("token")
    if contract["pad_token"] is not None:
        tokenizer.add_special_tokens({"pad_token": contract["pad_token"]})
    if transition is not None:
        # As a special token it is one piece in any text, and left out of what is shown.
        tokenizer.add_tokens([transition], special_tokens=True)
    tokenizer.add_bos_token = contract["add_bos"]
    tokenizer.add_eos_token = contract["add_eos"]
    if hasattr(tokenizer, "update_post_processor"):
        tokenizer.update_post_processor()


def copy_tokenizer(ir: ModelIR, folder: Path, spec_dir: Path | None) -> dict[str, Any]:
    """Saves the tokenizer into `folder` as the contract asks; returns the config's special token ids.

    A tokenizer that can't be found is not an error: one line says so, and the directory has none. The token that ends a
    phase is added to a tokenizer that lacks it. Errors: CompileError when the token that fills up, begins or ends texts
    or ends a phase lies beyond vocab_size, or when one and the same ends phases and texts.
    """
    contract = ir.tokenizer_contract
    name = contract["pretrained"]
    if name is None:
        _note_unknown_transition(ir)
        return {}
    found = find_tokenizer(name, spec_dir)
    try:
        tokenizer = load_tokenizer(name, spec_dir)
    # Broken tokenizer files raise whatever their parser happens to; none of it may stop a compile.
    except Exception as error:
        if found:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            note = msg("tokenizer {name} can't be used, so the directory has none: {reason}", name=name, reason=reason)
        else:
            note = msg("tokenizer {name} is not on this machine, so the directory has none", name=name)
        logger.warning(str(note))
        _note_unknown_transition(ir)
        return {}
    keep_contract(tokenizer, ir)
    transition = ir.transition.get("token")
    tokenizer.save_pretrained(folder)
    if len(tokenizer) > ir.model["vocab_size"]:
        logger.warning(
            str(
                msg(
                    "tokenizer {name} has {tokens} tokens, more than vocab_size {vocab_size}",
                    name=name,
                    tokens=len(tokenizer),
                    vocab_size=ir.model["vocab_size"],
                )
            )
        )
    ids = {key: getattr(tokenizer, key) for key in SPECIAL_TOKENS}
    if transition is not None:
        ids[TRANSITION_TOKEN] = tokenizer.convert_tokens_to_ids(transition)
    _check_in_use(ir, tokenizer, ids)
    return {key: value for key, value in ids.items() if value is not None and value < ir.model["vocab_size"]}


def _check_in_use(ir: ModelIR, tokenizer: Any, ids: Mapping[str, int | None]) -> None:
    """Raises a CompileError for a token that every batch would hold, but that has no row in the embedding table."""
    contract, rows = ir.tokenizer_contract, ir.model["vocab_size"]
    in_use = {
        "pad_token_id": "tokenizer_contract.pad_token",
        **({"bos_token_id": "tokenizer_contract.add_bos"} if contract["add_bos"] else {}),
        **({"eos_token_id": "tokenizer_contract.add_eos"} if contract["add_eos"] else {}),
        **({TRANSITION_TOKEN: "transition.token"} if TRANSITION_TOKEN in ids else {}),
    }
    outside = [
        Diagnostic(
            CompileError.category,
            msg("token {token} of {name} has the id {id}, but the embedding has {rows} rows",
                token=tokenizer.convert_ids_to_tokens(token), name=contract["pretrained"], id=token, rows=rows),
            msg("Type vocab_size: {tokens}, or name another pad_token", tokens=len(tokenizer))
            if key == "pad_token_id"
            else msg("Type vocab_size: {tokens}", tokens=len(tokenizer)),
            "reference/errors.md#special-token",
            path,
        )
        for key, path in in_use.items()
        if (token := ids[key]) is not None and token >= rows
    ]  # fmt: skip
    if ids.get(TRANSITION_TOKEN) is not None and ids[TRANSITION_TOKEN] == ids["eos_token_id"]:
        outside.append(
            Diagnostic(
                CompileError.category,
                msg("token {token} of {name} ends texts, so it can't end a phase too", token=ir.transition["token"],
                    name=contract["pretrained"]),
                msg("Type a token of its own, such as <think_end>"),
                "reference/errors.md#special-token",
                "transition.token",
            )
        )  # fmt: skip
    if outside:
        raise CompileError(outside)


def _note_unknown_transition(ir: ModelIR) -> None:
    """Says that nobody knows the id of the token that ends a phase, where there is one."""
    token = ir.transition.get("token")
    if token is not None:
        logger.warning(
            str(
                msg(
                    "without its tokenizer the id of {token}, which ends a phase, is not known: pass {argument} to "
                    "generate",
                    token=token,
                    argument=TRANSITION_TOKEN,
                )
            )
        )
