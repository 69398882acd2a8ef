"""All families of this package, for the hook `eulerstack_importers`."""

from __future__ import annotations

from eulerstack.plugins import Importer
from eulerstack_mixers.importers.bamba import BAMBA
from eulerstack_mixers.importers.deepseek_v3 import DEEPSEEK_V3
from eulerstack_mixers.importers.deepseek_v4 import DEEPSEEK_V4
from eulerstack_mixers.importers.gemma2 import GEMMA2
from eulerstack_mixers.importers.gpt2 import GPT2
from eulerstack_mixers.importers.jamba import JAMBA
from eulerstack_mixers.importers.llama import LLAMA
from eulerstack_mixers.importers.mistral import MISTRAL
from eulerstack_mixers.importers.mixtral import MIXTRAL
from eulerstack_mixers.importers.nemotron_h import NEMOTRON_H
from eulerstack_mixers.importers.olmo2 import OLMO2
from eulerstack_mixers.importers.qwen2 import QWEN2
from eulerstack_mixers.importers.qwen3 import QWEN3
from eulerstack_mixers.importers.qwen_moe import QWEN2_MOE, QWEN3_MOE
from eulerstack_mixers.importers.state_space import FALCON_MAMBA, MAMBA, MAMBA2


def importers() -> list[Importer]:
    """One `Importer` a family, in alphabetical order."""
    return [
        BAMBA,
        DEEPSEEK_V3,
        DEEPSEEK_V4,
        FALCON_MAMBA,
        GEMMA2,
        GPT2,
        JAMBA,
        LLAMA,
        MAMBA,
        MAMBA2,
        MISTRAL,
        MIXTRAL,
        NEMOTRON_H,
        OLMO2,
        QWEN2,
        QWEN2_MOE,
        QWEN3,
        QWEN3_MOE,
    ]
