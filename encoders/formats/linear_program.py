"""Linear and mixed-integer models as text: free MPS and CPLEX LP, for a solver of the reader's own.

Numbers are written as Python's repr, the shortest text that reads back to the same float64 (up to 17 digits); HiGHS'
writer keeps 15 and PuLP's 13. Columns are x0, x1, ...; rows r0, r1, ...; a row with two different finite ends is a
range in MPS and two rows (r0, r0_upper) in LP. Rows without any finite end are left out.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encoders.files import replacing
from encoders.linear_model import LinearModel

INFINITY = float("inf")


def write_linear_program(model: LinearModel, path: str | Path) -> None:
    """Write a linear or mixed-integer program as text, in one step, every number with all its digits.

    model: a `LinearModel`; its direction (INNER, EXACT, OUTER) stands in a comment of the file.
    path: its suffix is .mps (free MPS) or .lp (CPLEX LP); ValueError for another one.
    """
    target = Path(path)
    writers = {".mps": mps_lines, ".lp": lp_lines}
    if target.suffix not in writers:
        raise ValueError(f"{target}: a linear program is written as {' or '.join(writers)}, not {target.suffix!r}")
    with replacing(target) as temporary, temporary.open("w", encoding="ascii") as file:
        file.writelines(line + "\n" for line in writers[target.suffix](model))


def mps_lines(model: LinearModel) -> Iterator[str]:
    """Yield the lines of a free MPS file; the direction of the model stands in a comment."""
    yield f"* {model.rows} rows, {model.columns} columns, direction {model.direction}"
    yield "NAME model"
    yield "ROWS"
    yield " N cost"
    kinds = [_mps_kind(low, high) for low, high in _ends(model)]
    for i, kind in enumerate(kinds):
        if kind:
            yield f" {kind} r{i}"
    yield "COLUMNS"
    by_column = model.A.tocsc()
    in_integers = False
    for j in range(model.columns):
        if bool(model.integer[j]) != in_integers:
            in_integers = not in_integers
            yield f" marker{j} 'MARKER' '{'INTORG' if in_integers else 'INTEND'}'"
        # Written even where it is 0: a column must be named once.
        yield f" x{j} cost {_text(model.cost[j])}"
        for k in range(by_column.indptr[j], by_column.indptr[j + 1]):
            if kinds[by_column.indices[k]]:
                yield f" x{j} r{by_column.indices[k]} {_text(by_column.data[k])}"
    if in_integers:
        yield " marker 'MARKER' 'INTEND'"
    yield "RHS"
    for i, (low, high) in enumerate(_ends(model)):
        if kinds[i]:
            yield f" rhs r{i} {_text(high if kinds[i] == 'L' else low)}"
    ranges = [(i, low, high) for i, (low, high) in enumerate(_ends(model)) if _is_range(low, high)]
    if ranges:
        yield "RANGES"
        # MPS states the width, so the upper end reads back as lower + width, which may be rounded.
        yield from (f" range r{i} {_text(high - low)}" for i, low, high in ranges)
    yield "BOUNDS"
    for j in range(model.columns):
        yield f" LO bound x{j} {_text(model.col_lower[j])}"
        yield f" UP bound x{j} {_text(model.col_upper[j])}"
    yield "ENDATA"


def lp_lines(model: LinearModel) -> Iterator[str]:
    """Yield the lines of a CPLEX LP file."""
    yield f"\\ {model.rows} rows, {model.columns} columns, direction {model.direction}"
    yield "Minimize"
    yield " cost:" + (_terms(np.arange(model.columns), model.cost) or " 0 x0")
    yield "Subject To"
    for i, (low, high) in enumerate(_ends(model)):
        part = slice(model.A.indptr[i], model.A.indptr[i + 1])
        terms = _terms(model.A.indices[part], model.A.data[part]) or " 0 x0"
        if low == high:
            yield f" r{i}:{terms} = {_text(low)}"
            continue
        if low > -INFINITY:
            yield f" r{i}:{terms} >= {_text(low)}"
        if high < INFINITY:
            name = f"r{i}_upper" if low > -INFINITY else f"r{i}"
            yield f" {name}:{terms} <= {_text(high)}"
    yield "Bounds"
    for j in range(model.columns):
        yield f" {_text(model.col_lower[j])} <= x{j} <= {_text(model.col_upper[j])}"
    if model.integer.any():
        yield "General"
        yield from (f" x{j}" for j in np.flatnonzero(model.integer))
    yield "End"


def _ends(model: LinearModel) -> Iterator[tuple[float, float]]:
    return zip(model.row_lower.tolist(), model.row_upper.tolist(), strict=True)


def _mps_kind(low: float, high: float) -> str:
    if low == high:
        return "E"
    if low > -INFINITY:
        return "G"
    return "L" if high < INFINITY else ""


def _is_range(low: float, high: float) -> bool:
    return low != high and low > -INFINITY and high < INFINITY


def _terms(columns: np.ndarray, values: np.ndarray) -> str:
    """Return the sum as text, broken into short lines, as some readers limit their length."""
    parts = [
        f" {'-' if v < 0 else '+'} {_text(abs(v))} x{j}" for j, v in zip(columns, values.tolist(), strict=True) if v
    ]
    return "\n".join("".join(parts[start : start + 8]) for start in range(0, len(parts), 8))


def _text(value: float) -> str:
    return repr(float(value))
