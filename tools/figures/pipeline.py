"""What happens to a spec, from the file to the model directory."""

from __future__ import annotations

from collections.abc import Callable

from tools.figures.drawing import arrow, bar, box, label, picture

STEPS = [
    ("spec.yml", "one page"),
    ("DSL", "positions, let"),
    ("Schema", "three checks"),
    ("IR", "normal form"),
    ("Compiler", "exact costs"),
]
OUTPUT = ["config.json", "modeling_eulerstack.py", "model.safetensors"]
KOREAN = {
    "one page": "한 쪽",
    "positions, let": "위치, let",
    "three checks": "세 가지 검사",
    "normal form": "정규형",
    "exact costs": "정확한 비용",
    "model directory": "모델 디렉터리",
    "no torch needed": "torch 없이",
    "Trainer, PEFT, vLLM, …": "Trainer, PEFT, vLLM 등",
    "From a spec to a model directory": "스펙에서 모델 디렉터리까지",
}


def svg(say: Callable[[str], str]) -> str:
    """The drawing, in two rows; `say` gives its words in the reader's language."""
    parts = []
    for index, (name, what) in enumerate(STEPS):
        x, y = 16 + 144 * (index % 3), 16 if index < 3 else 122
        parts.append(box(x, y, 118, 52, name, say(what)))
        if index != 2:
            parts.append(arrow(x + 121, y + 26, x + 141, y + 26))
        if 1 <= index <= 3:
            parts.append(bar(x, y + 57, 118, 3, 2))
    parts.append('<path class="line" d="M363 80 V97 H75 V117 M71 111 L75 117 L79 111"/>')
    parts.append(box(304, 106, 170, 84, say("model directory"), *OUTPUT))
    parts.append(bar(16, 214, 24, 3, 2))
    parts.append(label(48, 220, say("no torch needed"), small=True))
    parts.append(label(474, 220, say("Trainer, PEFT, vLLM, …"), small=True, anchor="end"))
    return picture(490, 236, say("From a spec to a model directory"), parts)
