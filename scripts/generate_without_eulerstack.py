"""Loads exported directories where eulerstack can't be imported, offline, and generates from them.

    python -I scripts/generate_without_eulerstack.py DIRECTORY... [--prompt TEXT] [--new-tokens N] [--json]

Imports nothing of this repository. Where eulerstack is installed, importing it is made to fail first; where it is not,
that is taken for granted; in both cases the failure is checked before anything is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType


class EulerstackIsAbsent(MetaPathFinder):
    """Refuses every module whose top-level name begins with `eulerstack`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raises for our names, and leaves all others to the next finder."""
        if fullname.partition(".")[0].startswith("eulerstack"):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def forbid_eulerstack() -> None:
    """Makes `import eulerstack` fail in this process, and proves it."""
    sys.meta_path.insert(0, EulerstackIsAbsent())
    for name in ("eulerstack", "eulerstack_mixers", "eulerstack_presets"):
        try:
            __import__(name)
        except ModuleNotFoundError:
            continue
        raise SystemExit(f"{name} can be imported here: this run would prove nothing")


def generate(directory: Path, prompt: str, new_tokens: int) -> dict[str, object]:
    """Greedy continuation of `prompt`; of a fixed row of token ids where the directory holds no tokenizer."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True, dtype=torch.float32)
    tokenizer = None
    if (directory / "tokenizer.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=True)
        ids = tokenizer(prompt, return_tensors="pt").input_ids
    else:
        ids = torch.arange(1, 9).remainder(model.config.vocab_size).unsqueeze(0)
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens, pad_token_id=0
    )
    return {
        "transformers": transformers.__version__,
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": output[0].tolist(),
        "text": tokenizer.decode(output[0]) if tokenizer else None,
    }


def main() -> None:
    """Prints what was generated, for people or, with --json, for programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", type=Path, nargs="+")
    parser.add_argument("--prompt", default="An architecture is a promise that")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    forbid_eulerstack()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as modules:
        os.environ["HF_MODULES_CACHE"] = modules
        results = {each.name: generate(each, options.prompt, options.new_tokens) for each in options.directories}
    if options.json:
        print(json.dumps(results))
        return
    for result in results.values():
        print(
            f"import eulerstack  fails, as it should; transformers {result['transformers']} reads the directory alone"
        )
        print(f"loaded             {result['model']}, {result['parameters']:,} parameters")
        print(f"generated          {result['text']!r}")


if __name__ == "__main__":
    main()
