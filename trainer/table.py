"""Tables of figures: a row per method, a column per metric, as Markdown and JSON."""

import json
import math
from pathlib import Path

Rows = dict[str, dict[str, float]]


def markdown(rows: Rows) -> str:
    """A Markdown table; a dash where a method has no such figure."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method, row in rows.items():
        lines.append(f"| {method} | " + " | ".join(_figure(row.get(name, math.nan)) for name in columns) + " |")
    return "\n".join(lines)


def _figure(value: float) -> str:
    if math.isnan(value):
        return "-"
    if value == 0 or (value == int(value) and abs(value) >= 1):
        return str(int(value))
    return f"{value:.4f}" if abs(value) < 0.2 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def save_tables(tables: dict[str, Rows], notes: str, folder: Path) -> str:
    """Write titled tables as table.md and table.json into a folder; returns the Markdown."""
    text = "\n\n".join(f"### {title}\n\n{markdown(rows)}" for title, rows in tables.items()) + f"\n\n{notes}\n"
    (folder / "table.md").write_text(text, encoding="utf-8")
    figures = {t: {m: {k: _plain(v) for k, v in row.items()} for m, row in r.items()} for t, r in tables.items()}
    (folder / "table.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return text


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 5)
