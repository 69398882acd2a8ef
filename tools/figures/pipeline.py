"""What happens to a spec, from the file to the model directory."""

from __future__ import annotations

from tools.figures.drawing import arrow, box, label, picture

STEPS = [
    ("spec.yml", "one page"),
    ("DSL", "positions, let"),
    ("Schema", "three checks"),
    ("IR", "normal form"),
    ("Compiler", "exact costs"),
]
OUTPUT = ["config.json", "modeling_eulerstack.py", "model.safetensors"]


def svg() -> str:
    """The drawing."""
    parts = []
    for index, (name, what) in enumerate(STEPS):
        x = 16 + 118 * index
        parts.append(box(x, 40, 98, 52, name, what))
        parts.append(arrow(x + 100, 66, x + 116, 66))
    x = 16 + 118 * len(STEPS)
    parts.append(box(x, 24, 172, 84, "model directory", *OUTPUT))
    parts.append(label(16 + 118, 126, "no torch needed", small=True))
    parts.append(f'<path class="line" d="M{16 + 118} 108 L{16 + 118 * 4 - 20} 108"/>')
    parts.append(label(x + 172, 126, "Trainer, PEFT, vLLM, …", small=True, anchor="end"))
    return picture(x + 188, 142, "From a spec to a model directory", parts)
