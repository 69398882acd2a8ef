"""The model classes of programs that have eulerstack installed: those of an export, plus saving their own source.

A model that was built in memory has no `modeling_eulerstack.py` yet; `save_pretrained` writes one, so that every saved
directory loads where eulerstack is not installed.
"""

from pathlib import Path
from typing import Any

from eulerstack.hf import modeling
from eulerstack.hf.ecosystem import AUTO_MAP
from eulerstack.hf.origin import SPEC_FILE, origin_file
from eulerstack.ir.printer import from_data


class SavesItsSource:
    """Adds the generated source, the auto classes' map and, for a model built in memory, the spec to what is saved."""

    config: Any

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the directory then loads with `trust_remote_code=True` anywhere."""
        from eulerstack.compiler.writer import write_origin, write_source

        self.config.auto_map = dict(AUTO_MAP)
        result = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        ir = from_data(self.config.architecture)
        write_source(ir, Path(save_directory))
        if origin_file(self.config, SPEC_FILE) is None:
            write_origin(ir, Path(save_directory))
        return result


class EulerStackModel(SavesItsSource, modeling.EulerStackModel):
    """The stack without its head."""


class EulerStackForCausalLM(SavesItsSource, modeling.EulerStackForCausalLM):
    """The stack with a language-model head."""
