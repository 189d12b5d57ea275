"""The figures of `bench`, for people and for programs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from realtime.puppet import STAGES

ROWS = (*STAGES, "latency")


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The figures of one or more engines for a person to read, side by side."""
    lines = [f"{'milliseconds':<20}" + "".join(f"{run['engine'] + ' ' + run['precision']:>29}" for run in runs)]
    lines.append(" " * 20 + "".join(f"{'median':>13}{'p95':>8}{'p99':>8}" for _ in runs))
    for row in ROWS:
        spreads = [run["latency_ms"] if row == "latency" else run["stages_ms"][row] for run in runs]
        lines.append(f"{row:<20}" + "".join(f"{s['median']:>13.2f}{s['p95']:>8.2f}{s['p99']:>8.2f}" for s in spreads))
    totals = {
        "frames per second": "fps",
        "frames": "frames",
        "dropped at 30 FPS": "dropped",
        "first frame, s": "first_frame_s",
        "new photo, ms": "target_change_ms",
        "peak memory, MiB": "peak_memory_mb",
    }
    lines += [f"{label:<20}" + "".join(f"{run[key]:>29}" for run in runs) for label, key in totals.items()]
    return "\n".join([*lines, *sorted({f"on {run['device']}" for run in runs})])


def document(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures for a program to read: the first engine's, and under `runs`, where there are several, all."""
    return dict(runs[0]) if len(runs) == 1 else {**runs[0], "runs": list(runs)}


def write_report(runs: Sequence[dict[str, Any]], path: Path) -> None:
    path.write_text(json.dumps(document(runs), indent=2) + "\n", encoding="utf-8")


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """A bar chart of the stages as PNG: medians, with a whisker up to the 95th percentile."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(runs)
    for number, run in enumerate(runs):
        spreads = [run["latency_ms"] if row == "latency" else run["stages_ms"][row] for row in ROWS]
        medians = np.array([spread["median"] for spread in spreads])
        reach = np.array([spread["p95"] for spread in spreads]) - medians
        places = np.arange(len(ROWS)) + (number - (len(runs) - 1) / 2) * height
        label = f"{run['engine']} {run['precision']}: {run['fps']:.0f} frames per second"
        axes.barh(places, medians, height, xerr=[reach * 0, reach], capsize=3, label=label)
    axes.set_yticks(range(len(ROWS)), ROWS)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a frame: median, and whisker to the 95th percentile")
    axes.set_title(runs[0]["device"])
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(path))  # type: ignore[no-untyped-call]
