"""The picture of a corpus: how long its documents are, source by source."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

_BINS = 40


def draw_lengths(lengths: Mapping[str, np.ndarray], path: Path) -> None:
    """Histograms of the documents' characters on a logarithmic axis, one row a source; equal lengths give equal bytes.

    Args:
        lengths: source → characters of its documents.
        path: of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: most of a second that reading needs not
    from matplotlib.figure import Figure

    present = {name: values for name, values in lengths.items() if len(values)}
    figure = Figure(figsize=(8, 0.9 + 1.05 * max(1, len(present))), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    least = min((int(values.min()) for values in present.values()), default=1)
    most = max((int(values.max()) for values in present.values()), default=10)
    edges = np.geomspace(max(1, least) * 0.95, max(most, least + 1) * 1.05, _BINS + 1)
    rows = figure.subplots(max(1, len(present)), 1, sharex=True, squeeze=False)[:, 0]
    for row, (name, values) in zip(rows, present.items(), strict=False):
        row.hist(values, bins=edges, weights=values / values.sum() * 100, color="#3b6ea8")
        row.axvline(np.median(values), color="#c0504d", linewidth=1)
        row.set_xscale("log")
        row.set_ylabel("% of text", fontsize=8)
        row.set_title(f"{name}: {len(values):,} documents, median {int(np.median(values)):,}", loc="left", fontsize=9)
        row.spines[["top", "right"]].set_visible(False)
        row.tick_params(labelsize=8)
    rows[-1].set_xlabel("characters in a document (the line is the median)", fontsize=8)
    figure.savefig(path, metadata={"Software": None})
