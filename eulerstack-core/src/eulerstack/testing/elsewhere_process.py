"""Run as a script where nothing of EulerStack has been imported: loads model directories, one after another.

Each line of the standard input is a request, JSON: `directory`, `hidden` (top-level packages that can't be
imported, beside those of EulerStack), `results` (the file for what was computed), `again` (a directory to save the
model into and load it from, or null).
Each is served in a process of its own, forked from this one, which has only paid for the imports. A line of the
standard output answers it, JSON: null, or the text of the error.
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any

# What a model imports when it is loaded, and takes most of the time.
SLOW = (
    "torch._dynamo",
    "transformers.generation.utils",
    "transformers.masking_utils",
    "transformers.modeling_layers",
    "transformers.modeling_utils",
)


def hides(hidden: list[str], name: str) -> bool:
    """Whether a module belongs to EulerStack, or to one of the top-level packages `hidden`."""
    package = name.split(".")[0]
    return package.startswith("eulerstack") or package in hidden


class Refuse:
    """An import hook that hides packages."""

    def __init__(self, hidden: list[str]):
        self.hidden = hidden

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if hides(self.hidden, name):
            raise ModuleNotFoundError(f"{name} is hidden from this process", name=name)


def serve(directory: str, hidden: list[str], results: str, again: str | None) -> None:
    """Computes what the model in a directory computes, and saves it."""
    sys.meta_path.insert(0, Refuse(hidden))
    loaded = [name for name in sys.modules if hides(hidden, name)]
    if loaded:
        raise RuntimeError(f"already imported: {loaded}")
    model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)
    if again:
        model.save_pretrained(again)
        model = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True)
    base = AutoModel.from_pretrained(directory, trust_remote_code=True)
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    with torch.no_grad():
        found = {"logits": model(ids).logits, "hidden": base(ids).last_hidden_state}
    found["generated"] = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    torch.save({**found, "dtype": str(model.dtype)}, results)


def answer(request: dict[str, Any]) -> str | None:
    """Serves one request in a process of its own; the text of what went wrong, or None."""
    if not hasattr(os, "fork"):
        return in_this_process(request)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            json.dump(in_this_process(request), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    error: str | None = json.loads(text) if text else f"the process ended with status {status}"
    return error


def in_this_process(request: dict[str, Any]) -> str | None:
    """The text of what went wrong while a request was served, or None."""
    try:
        serve(**request)
    except BaseException:
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    import torch
    import torch._dynamo
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils import logging

    for name in SLOW:
        importlib.import_module(name)

    # Only what came with the request's line is answered on the standard output; whatever models print goes elsewhere.
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
        if not hasattr(os, "fork"):
            # What one request has imported can't be taken back.
            break
