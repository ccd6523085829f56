"""The table of results, in Markdown, and the cactus plot: instances decided within so many seconds each."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from instances import Instance, Row

# Seconds in which a tool decided instances, by tool and instance.
Peers = Mapping[str, Mapping[tuple[str, str, str], float]]
FASTEST = "fastest of all"
HEADER = (
    "family", "instances", "decided", "sat", "unsat", "wrong", "unknown", "timeout", "error", "geo-mean s", "median s",
    "most s", "geo-mean CPU s", "most MiB", "load",
)  # fmt: skip
CHECKS = ("certificates that hold", "check s / solving s")
GROUPS: dict[str, Callable[[Row], str]] = {
    "family": lambda row: row.family,
    "network": lambda row: f"{row.family}, {Path(row.onnx).name.split('.onnx')[0]}",
}


def read_peers(files: Sequence[Path], instances: Sequence[Instance]) -> Peers:
    """Return what is known of other tools: files with the columns tool, family, onnx, vnnlib, seconds.

    A line without seconds was not decided. The fastest of all tools comes from the families themselves.
    """
    peers: dict[str, dict[tuple[str, str, str], float]] = {}
    for each in instances:
        if each.fastest is not None:
            peers.setdefault(FASTEST, {})[each.key] = each.fastest
    for path in files:
        with path.open(newline="") as file:
            lines = csv.DictReader(file)
            missing = {"tool", "family", "onnx", "vnnlib", "seconds"} - set(lines.fieldnames or ())
            if missing:
                raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))}")
            for line in lines:
                known = peers.setdefault(line["tool"], {})
                if line["seconds"]:
                    known[line["family"], line["onnx"], line["vnnlib"]] = float(line["seconds"])
    return peers


def table(rows: Sequence[Row], peers: Peers, by: str = "family") -> str:
    """Return the table in Markdown, a line for each group of rows.

    Seconds are wall time of whole processes over decided instances. Of a peer: how many of these instances it decides,
    and the geometric mean of our seconds over its own where both do.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(GROUPS[by](row), []).append(row)
    tools = [tool for tool in peers if any(row.key in peers[tool] for row in rows)]
    has_checks = any(row.check for row in rows)
    header = [
        *HEADER,
        *(f"{tool}: decided, ratio" for tool in tools),
        *(CHECKS if has_checks else ()),
    ]
    lines = [header, ["---"] * len(header)]
    for name, group in groups.items():
        cells = [name, *_numbers(group), *(_against(group, peers[tool]) for tool in tools)]
        lines.append([*cells, *(_checks(group) if has_checks else [])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _numbers(group: Sequence[Row]) -> list[str]:
    """Return the cells of a group after its name."""
    solved = [row for row in group if row.is_decided]
    counts = [sum(row.verdict == verdict for row in group) for verdict in ("sat", "unsat")]
    rest = [sum(row.verdict == verdict for row in group) for verdict in ("unknown", "timeout", "error")]
    wall, cpu = [row.wall for row in solved], [row.cpu for row in solved]
    seconds = [geometric_mean(wall), statistics.median(wall) if wall else None, max(wall, default=None)]
    shown = ["" if value is None else f"{value:.2f}" for value in (*seconds, geometric_mean(cpu))]
    loads = [row.load for row in group]
    return [
        str(len(group)), str(len(solved)), *map(str, counts), str(sum(row.is_wrong for row in group)), *map(str, rest),
        *shown, f"{max(row.peak for row in group):.0f}", f"{min(loads):.1f} to {max(loads):.1f}",
    ]  # fmt: skip


def _against(group: Sequence[Row], peer: Mapping[tuple[str, str, str], float]) -> str:
    """Return how a peer fares on the instances of a group."""
    ratios = [row.wall / peer[row.key] for row in group if row.is_decided and peer.get(row.key)]
    decided = sum(row.key in peer for row in group)
    return f"{decided}" + (f", {geometric_mean(ratios):.2f}" if ratios else "")


def _checks(group: Sequence[Row]) -> list[str]:
    """Return how many certificates hold, and the median share of the solving time that checking takes."""
    held = [row for row in group if row.check == "ok" and row.leaves]
    shares = [row.checking / row.solving for row in held if row.checking is not None and row.solving]
    large = [row.checking / row.solving for row in held if row.leaves >= 100 and row.checking and row.solving]
    text = f"{statistics.median(shares):.3f}" if shares else ""
    proved = sum(row.verdict == "unsat" for row in group)
    return [
        f"{len(held)} of {proved}",
        text + (f" ({statistics.median(large):.3f} from 100 leaves on)" if large else ""),
    ]


def geometric_mean(values: Sequence[float]) -> float | None:
    """Return the geometric mean of positive numbers; None of none."""
    return statistics.geometric_mean([max(value, 1e-3) for value in values]) if values else None


def cactus(rows: Sequence[Row], peers: Peers, path: Path) -> Path:
    """Draw how many instances are decided within so many seconds each, here and by peers; return the PNG's path."""
    # Imported here: it takes half a second, and a child's peak of memory begins with that of its parent.
    from verifier.reports.figure import new_axes, save

    figure, axes = new_axes(6.0, 4.0)
    keys = {row.key for row in rows}
    curves = {"this verifier": [row.wall for row in rows if row.is_decided]}
    curves |= {tool: [seconds for key, seconds in known.items() if key in keys] for tool, known in peers.items()}
    for tool, seconds in curves.items():
        if seconds:
            axes.step(range(1, len(seconds) + 1), sorted(seconds), where="post", label=f"{tool} ({len(seconds)})")
    axes.set_yscale("log")
    axes.set_xlabel(f"instances decided, of {len(keys)}")
    axes.set_ylabel("seconds, start-up included")
    axes.legend()
    return save(figure, path)
