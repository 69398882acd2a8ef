"""The positions `vendor.toy.waves`: sines and cosines of the place, added to the embeddings. No parameters.

Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5
"""

from __future__ import annotations

from eulerstack.plugins import Primitive

SCHEMA = {
    "type": "object",
    "description": "The slowest wave.",
    "properties": {
        "base": {
            "type": "number",
            "exclusiveMinimum": 1,
            "default": 10000.0,
            "description": "Tokens in the slowest wave, over 2π.",
        },
    },
}

WAVES = Primitive(
    name="vendor.toy.waves",
    kind="position",
    summary="fixed waves of falling frequency, added to the embeddings",
    paper="arXiv:1706.03762",
    schema=SCHEMA,
    place="embeddings",
    module="eulerstack_toy.modules.position:ToyWaves",
    reference="eulerstack_toy.reference.kinds:naive_waves",
)
