"""Numbers for each input of a model, from a file or an array: scales and domains.

`.npy`: one array. `.npz`: one array, or two of the names that are asked for. `.csv` and `.txt`: rows of numbers between
commas or spaces; a first line of names is compared with the columns of the data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.limits import Limits
from verifier.data.archive import check_file, read_npz
from verifier.data.error import DataError
from verifier.data.npy import read_npy
from verifier.data.table import NUMBER

# What a caller gives: a file, or the numbers.
Vectors = str | Path | Sequence[Any] | NDArray[Any]
KINDS = "numbers, or a .npy, .npz, .csv or .txt file of them"


def read_vectors(
    given: Any, names: Sequence[str], shape: tuple[int, ...], columns: Sequence[str], limits: Limits
) -> NDArray[np.float64]:
    """Return one vector for each of the names, `(len(names), *shape)`, in the order of a model's input.

    given: as `Vectors`; names: of the vectors, and of the arrays in a .npz; columns: of the data, if they have names.
    A table of as many columns as names holds a vector in each. Raises DataError where they are not so many numbers.
    """
    what = " and ".join(names)
    if isinstance(given, str | Path):
        values, what = _read(Path(given).expanduser(), names, columns, limits), f"{given} ({what})"
    else:
        try:
            values = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
        except (TypeError, ValueError) as error:
            raise DataError(f"{what}: {error}; give {KINDS}") from error
    if values.dtype.kind not in "iuf" or values.dtype.itemsize > 8:
        raise DataError(f"{what}: no numbers but {values.dtype}; give {KINDS}")
    count, inputs = len(names), int(np.prod(shape, dtype=int))
    if values.size != count * inputs:
        raise DataError(
            f"{what}: {values.size} numbers of shape {values.shape}, where {count * inputs} are needed: "
            f"{'one' if count == 1 else count} for each of the {inputs} inputs of the model"
        )
    if count > 1 and values.shape[0] != count and values.ndim == 2 and values.shape[1] == count:
        values = values.T
    elif count > 1 and values.shape[0] != count:
        raise DataError(f"{what}: shape {values.shape}; give {count} rows or {count} columns")
    return np.ascontiguousarray(values.reshape(count, *shape), dtype=np.float64)


def _read(path: Path, names: Sequence[str], columns: Sequence[str], limits: Limits) -> NDArray[Any]:
    size = check_file(path)
    limits.check("text_bytes", size, f"{path}")
    if path.suffix == ".npz":
        arrays = read_npz(path, names, (), limits)
        if len({array.shape for array in arrays.values()}) > 1:
            raise DataError(f"{path}: its arrays {', '.join(names)} differ in shape")
        return np.stack([arrays[name] for name in names])
    if path.suffix == ".npy":
        try:
            with path.open("rb") as file:
                found = read_npy(file, size)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as an array: {error}") from error
        if found is None:
            raise DataError(f"{path}: no .npy file; save the array with np.save(file, array)")
        return found
    if path.suffix in (".csv", ".txt"):
        return _read_text(path, columns)
    raise DataError(f"{path}: give {KINDS}")


def _read_text(path: Path, columns: Sequence[str]) -> NDArray[np.float64]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        divided = line.split(",") if "," in line else line.split()
        cells = [cell.strip().strip('"') for cell in divided]
        if not any(cells):
            continue
        odd = next((cell for cell in cells if not NUMBER.fullmatch(cell)), None)
        if odd is None:
            if rows and len(cells) != len(rows[0]):
                raise DataError(f"{path}, line {number}: {len(cells)} numbers, the rows before have {len(rows[0])}")
            rows.append([float(cell) for cell in cells])
        elif rows or any(map(NUMBER.fullmatch, cells)) or re.fullmatch(r"[-+]?(nan|inf(inity)?)?", odd.lower()):
            raise DataError(f"{path}, line {number}: {odd[:40]!r} is no finite number")
        elif len(cells) == len(columns) and cells != list(columns):
            differs = next(k for k, name in enumerate(columns) if cells[k] != name)
            raise DataError(
                f"{path}, line {number}: column {differs} is called {cells[differs][:40]!r}, the data's "
                f"{columns[differs]!r}; the order is that of the data"
            )
    if not rows:
        raise DataError(f"{path}: holds no numbers")
    return np.array(rows)


def places(given: Sequence[int | str], shape: tuple[int, ...], columns: Sequence[str]) -> tuple[int, ...]:
    """Return the places that are named, rising: column names, places from 0, or ranges `7:12` (7 to 11).

    Raises DataError naming the first that is none of these.
    """
    count, found = int(np.prod(shape, dtype=int)), set[int]()
    for one in given:
        text = str(one)
        span = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text)
        if isinstance(one, str) and text in columns:
            found.add(list(columns).index(text))
        elif re.fullmatch(r"[0-9]{1,9}", text) and int(text) < count:
            found.add(int(text))
        elif span is not None and int(span[1]) < int(span[2]) <= count:
            found.update(range(int(span[1]), int(span[2])))
        else:
            known = f" or a column ({', '.join(columns[:8])}{', ...' if len(columns) > 8 else ''})" if columns else ""
            raise DataError(
                f"cannot fix {text[:40]!r}: give a place of 0 to {count - 1}, a range such as 7:12 (7 to 11){known}"
            )
    return tuple(sorted(found))
