"""Writes files of text as JSON lines, which `python -m eulerstack.data.prepare` reads.

    python examples/make_corpus.py build/corpus.jsonl [FILE...]

Without files it takes the sources of this Python's standard library, which are on every machine.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def main() -> None:
    """Writes one object a file; files that are not UTF-8 are left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    options = parser.parse_args()
    files = options.files or sorted(Path(os.__file__).parent.glob("*.py"))

    options.output.parent.mkdir(parents=True, exist_ok=True)
    documents = characters = 0
    with open(options.output, "w", encoding="utf-8", newline="\n") as output:
        for file in files:
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            output.write(json.dumps({"text": text}) + "\n")
            documents, characters = documents + 1, characters + len(text)
    print(f"{options.output}: {documents} documents of {characters:,} characters")


if __name__ == "__main__":
    main()
