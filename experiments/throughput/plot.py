"""Draws orders a second against trajectories for three shapes, with the limit that memory sets.

    python experiments/throughput/plot.py experiments/throughput/rollouts.json experiments/throughput/rollouts.png

The file holds rows of `results.json` of `benchmark --config=benchmark:rollout`, with their device. The limit is the
time in which a device of `BANDWIDTH` reads and writes the bytes that the benchmark counts for a step
(`bytes_per_step`: weights, head, filled slots, books; each once). At few trajectories launches cost more than bytes.
"""

import json
import pathlib
import sys

from matplotlib.figure import Figure

from marsjax.analysis.figure_style import CAME, MIDDLE, PATH, plain

BANDWIDTH = {"NVIDIA H200": 4.8e12, "NVIDIA H100 80GB HBM3": 3.35e12}
"""Bytes a second of a device's memory, as its maker says."""
NAMES = {"2m": "2M shape (1 x 16, float32)", "2x64": "2 x 64, bfloat16", "24x1024": "24 x 1,024, bfloat16"}
COLORS = {"2m": MIDDLE, "2x64": CAME, "24x1024": PATH}


def main(source: str, target: str) -> None:
    """Reads the rows and writes the picture."""
    rows = json.loads(pathlib.Path(source).read_text(encoding="utf-8"))
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for model, name in NAMES.items():
        for cache, marker, style in (("model", "o", "-"), ("int8", "s", "--")):
            mine = sorted((row for row in rows if (row["model"], row["cache_dtype"]) == (model, cache)),
                          key=lambda row: row["trajectories"])
            if not mine:
                continue
            at = [row["trajectories"] for row in mine]
            label = name + (", cache in 8 bits" if cache == "int8" else "")
            axes.plot(at, [row["orders_per_s"] for row in mine], style, marker=marker, color=COLORS[model], label=label)
            limit = [row["trajectories"] * BANDWIDTH[row["device"]] / sum(row["bytes_per_step"].values())
                     for row in mine]
            axes.plot(at, limit, ":", marker=marker, markersize=3, color=COLORS[model], alpha=0.6)
    axes.set(xscale="log", yscale="log", xlabel="trajectories", ylabel="orders a second, end to end")
    axes.plot([], [], ":", color="0.4", label="what memory alone would allow")
    devices = ", ".join(sorted({f"{row['device']}, JAX {row['jax']}" for row in rows}))
    axes.set_title(devices, fontsize="medium", loc="left")
    axes.legend(fontsize="small")
    plain(axes)
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
