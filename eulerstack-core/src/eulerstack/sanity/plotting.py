"""The picture of several runs: losses on the left, gradient norms on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eulerstack.sanity.report import Report


def draw(reports: Sequence[Report], path: Path) -> None:
    """Writes the picture. The same reports give the same SVG."""
    import matplotlib

    # A figure of its own, so that nothing of the caller's is touched and no window is opened.
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "eulerstack", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for report in reports:
            steps = range(1, len(report.losses) + 1)
            left.plot(steps, report.losses, label=report.name)
            right.plot(range(1, len(report.gradient_norms) + 1), report.gradient_norms, label=report.name)
        for guess in sorted({report.uniform_loss for report in reports}):
            left.axhline(guess, color="gray", linewidth=0.8, linestyle=":")
        left.set(xlabel="step", ylabel="loss (nats per token)")
        right.set(xlabel="step", ylabel="gradient norm", yscale="log")
        left.legend(fontsize="small")
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata)
