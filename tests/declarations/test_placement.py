"""Which norms a layer holds."""

import pytest

from eulerstack_mixers.declarations.residuals import RESIDUALS, norm_slots


@pytest.mark.parametrize(
    ("residual", "position", "slots"),
    [
        ("sequential", "pre", ("mixer_norm", "ffn_norm")),
        ("sequential", "post", ("mixer_norm", "ffn_norm")),
        ("sequential", "output", ("mixer_output_norm", "ffn_output_norm")),
        ("sequential", "sandwich", ("mixer_norm", "mixer_output_norm", "ffn_norm", "ffn_output_norm")),
        ("parallel", "pre", ("mixer_norm",)),
        ("parallel", "post", ("mixer_norm",)),
        ("parallel", "output", ("mixer_output_norm", "ffn_output_norm")),
        ("parallel", "sandwich", ("mixer_norm", "mixer_output_norm", "ffn_output_norm")),
    ],
)
def test_each_residual_and_position_has_its_own_norms(residual: str, position: str, slots: tuple[str, ...]) -> None:
    assert norm_slots(residual, position) == slots
    declared = next(primitive for primitive in RESIDUALS if primitive.name == residual)
    assert declared.norm_slots is not None and declared.norm_slots(position, True) == slots
