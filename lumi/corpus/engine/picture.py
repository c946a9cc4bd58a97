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
    n_rows = max(1, len(present))
    height = 0.6 + 1.15 * n_rows
    figure = Figure(figsize=(8, height), dpi=100)
    FigureCanvasAgg(figure)
    least = min((int(values.min()) for values in present.values()), default=1)
    most = max((int(values.max()) for values in present.values()), default=10)
    edges = np.geomspace(max(1, least) * 0.95, max(most, least + 1) * 1.05, _BINS + 1)
    # Fixed margins: a layout that measures every label takes a second.
    margins = {"left": 0.08, "right": 0.99, "top": 1 - 0.25 / height, "bottom": 0.5 / height, "hspace": 0.55}
    rows = figure.subplots(n_rows, 1, sharex=True, squeeze=False, gridspec_kw=margins)[:, 0]
    for row, (name, values) in zip(rows, present.items(), strict=False):
        row.hist(values, bins=edges, weights=values / values.sum() * 100, color="#3b6ea8")
        row.axvline(np.median(values), color="#c0504d", linewidth=1)
        row.set_xscale("log")
        row.set_ylabel("% of text", fontsize=8)
        row.set_title(f"{name}: {len(values):,} documents, median {int(np.median(values)):,}", loc="left", fontsize=9)
        row.spines[["top", "right"]].set_visible(False)
        row.tick_params(labelsize=8, labelbottom=row is rows[-1])
        row.minorticks_off()
    rows[-1].set_xlabel("characters in a document (the line is the median)", fontsize=8)
    figure.savefig(path, metadata={"Software": None})
