"""Products with a matrix of its own for each group of rows."""

import torch
from torch import nn

# torch's grouped product takes these number types, and strides of whole multiples of so many bytes.
GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GROUPED_ALIGNMENT = 16


def grouped_linear(rows: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Row r of group g becomes weights[g] @ r; group g is the rows ends[g - 1] … ends[g] - 1.

    Shapes: rows (n, in), sorted by group; weights (groups, out, in); ends (groups), int32 -> (n, out)

    One kernel for all groups where there is one for the number type and the device; otherwise group by group, which a
    compiled graph holds as one node of transformers' own.
    """
    weights = weights.to(rows.dtype)
    if torch.compiler.is_compiling() and rows.dtype != torch.bfloat16:
        return torch.ops.transformers.grouped_mm_fallback(rows, weights.transpose(-2, -1), ends)
    if rows.dtype not in GROUPED_DTYPES or (rows.is_cuda and rows.dtype != torch.bfloat16):
        begins = [0, *ends.tolist()]
        parts = [rows[begin:end] @ weight.T for begin, end, weight in zip(begins, begins[1:], weights, strict=False)]
        return torch.cat(parts)
    step = GROUPED_ALIGNMENT // rows.element_size()
    out_width, in_width = weights.shape[1:]
    missing_out, missing_in = -out_width % step, -in_width % step
    if missing_out or missing_in:
        # Zeros beside the numbers change no product.
        rows = nn.functional.pad(rows, (0, missing_in))
        weights = nn.functional.pad(weights, (0, missing_in, 0, missing_out))
    return nn.functional.grouped_mm(rows, weights.transpose(-2, -1), offs=ends)[:, :out_width]
