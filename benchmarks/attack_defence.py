"""What defences are worth: each under every attack, under the strongest of all, and what of it is certified.

    python benchmarks/attack_defence.py --folder RUNS [--data mnist] [--data-dir MNIST] [--inputs 500] [--epochs 5]
        [--quick] [--rows none k-WTA ...]

Rows are defences, trained on the same images and, MWD excepted, of one small convolutional network; columns are attacks
within epsilon in the inf-norm. A number is the share of the inputs, the same in all cells, that the defended system
still gets right: `attack_defence_cells.py` says what breaks which, and that of a network that draws the vote is judged.
`adaptive` is `auto`, an ensemble chosen by what the network is, and on a detected network the attack that knows the
detector; `strongest` is what withstands all columns together and the counterexamples that the proofs met; `certified`
what is proved. Hatched: the attack has nothing to work on (no stand-in gradients, nothing drawn).

Networks and cells are kept in the folder: what is there is not done again, Ctrl-C leaves what is known, and the same
command goes on. Writes matrix.csv, matrix.json and matrix.png.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attack_defence_cells import COLUMNS, DEVIATIONS, Cell, attack_of, decide, prove
from attack_defence_picture import draw
from attack_defence_rows import SURROGATE, Defence, Row, Scale, defences, fitted, make_row, trained

from verifier.data import load_data

STRONGEST, CERTIFIED = "strongest", "certified"
HEADINGS = ("clean", *COLUMNS, STRONGEST, CERTIFIED)
QUICK = Scale(
    inputs=30, epochs=2, train=2000, batch=20, rate=5e-3, draws=20, seconds=0.1,
    hidden={"cnn-small": (4, 8, 16), "mwd": (16,)},
    settings={
        "pgd": {"steps": 10}, "cw": {"steps": 10}, "square": {"queries": 50}, "eot": {"steps": 5, "draws": 4},
        "auto": {"steps": 5},
    },
)  # fmt: skip


class Cells:
    """The cells of a folder, by a key of all that they depend on; appended to a file one by one."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, dict[str, Cell]()
        for text in path.read_text().splitlines() if path.exists() else ():
            line = json.loads(text)
            self.known[line.pop("key")] = Cell(**line["cell"])

    def add(self, key: str, row: str, column: str, cell: Cell) -> None:
        """Keep a cell."""
        self.known[key] = cell
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "row": row, "column": column, "cell": dataclasses.asdict(cell)}) + "\n")


class Matrix:
    """The options of a command, and what is known of its rows: by row and heading which inputs withstand."""

    def __init__(self, scale: Scale, data: str, folder: Path, data_dir: Path | None) -> None:
        self.scale, self.data, self.folder, self.data_dir = scale, data, folder, data_dir
        self.cells = Cells(folder / "cells.jsonl")
        self.masks: dict[str, dict[str, list[bool]]] = {}
        self.details: dict[str, dict[str, Any]] = {}
        self.inputs = load_data(data, data_dir=data_dir)

    def work(self, names: Sequence[str]) -> None:
        """Train and decide what is not known yet."""
        rows = defences(self.scale.epsilon)
        surrogate = self._trained(Defence(), SURROGATE)
        for name in names:
            defence = rows[name]
            path = self._trained(defence, "none" if defence.detected else name)
            odds = fitted(path, self.scale, self.data, self.data_dir) if defence.detected else None
            self._decide(make_row(name, self.scale, self.inputs, (path, surrogate), odds))

    def _trained(self, defence: Defence, name: str) -> Path:
        return trained(defence, name, self.scale, self.data, self.folder, self.data_dir)

    def _decide(self, row: Row) -> None:
        masks = self.masks[row.name] = {"clean": row.clean.tolist()}
        details = self.details[row.name] = {"model": row.path.name, "digest": row.network.digest, "seconds": {}}
        standing = row.clean.clone()
        for column in COLUMNS:
            attack = attack_of(row, column, self.scale.settings)
            if attack is None:
                continue
            identity = [column, repr(attack_name(column, self.scale)), self.scale.epsilon, *row.identity]
            cell = self._cell(identity, row, column, lambda attack=attack: decide(row, attack, self.scale.epsilon))
            masks[column] = cell.withstood
            details["seconds"][column] = round(cell.seconds, 2)
            standing &= torch.tensor(cell.withstood)
        identity = [CERTIFIED, self.scale.epsilon, self.scale.seconds, standing.tolist(), DEVIATIONS, *row.identity]
        epsilon, seconds = self.scale.epsilon, self.scale.seconds
        cell = self._cell(identity, row, CERTIFIED, lambda: prove(row, epsilon, seconds, standing))
        if cell.found is not None:
            standing &= ~torch.tensor(cell.found)
        masks[STRONGEST], masks[CERTIFIED] = standing.tolist(), cell.withstood
        details["seconds"][CERTIFIED], details["proved by"] = round(cell.seconds, 2), cell.note
        check(row.name, masks)

    def _cell(self, identity: list[Any], row: Row, column: str, make: Any) -> Cell:
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:20]
        if key not in self.cells.known:
            self.cells.add(key, row.name, column, make())
            cell = self.cells.known[key]
            share = sum(cell.withstood) / len(cell.withstood)
            print(f"{row.name:22}{column:12}{share:8.1%}{cell.seconds:10.1f} s", flush=True)
        return self.cells.known[key]

    def shares(self) -> dict[str, dict[str, float | None]]:
        """Return the shares by row and heading, None where there is nothing to measure or nothing known yet."""
        return {
            row: {name: sum(masks[name]) / len(masks[name]) if name in masks else None for name in HEADINGS}
            for row, masks in self.masks.items()
        }

    def write(self) -> None:
        """Write what is known as CSV, JSON and a picture, and print it."""
        shares = self.shares()
        with (self.folder / "matrix.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["defence", *HEADINGS])
            for row, cells in shares.items():
                writer.writerow([row, *("" if cells[name] is None else f"{cells[name]:.4f}" for name in HEADINGS)])
        told = {"data": self.data, "norm": "inf", **dataclasses.asdict(self.scale), "rows": {
            row: {**self.details[row], "shares": cells} for row, cells in shares.items()
        }}  # fmt: skip
        (self.folder / "matrix.json").write_text(json.dumps(told, indent=1) + "\n")
        words = f"% of {self.scale.inputs} inputs of {self.data} still right within {self.scale.epsilon:g} (inf-norm)"
        if shares:
            draw(shares, HEADINGS, words, self.folder / "matrix.png")
        print("".join(f"{name:>11}" for name in ("", *HEADINGS)).lstrip().rjust(11 * (len(HEADINGS) + 1) + 11))
        for row, cells in shares.items():
            texts = ("-" if cells[name] is None else f"{cells[name]:.1%}" for name in HEADINGS)
            print(f"{row:22}" + "".join(f"{text:>11}" for text in texts))


def attack_name(column: str, scale: Scale) -> tuple[str, dict[str, Any]]:
    """Return what the attack of a column is called, and all settings of it that are not the table's."""
    name, usual = COLUMNS[column]
    return name, {**usual, **scale.settings.get(name, {})}


def check(name: str, masks: Mapping[str, Sequence[bool]]) -> None:
    """Raise ArithmeticError where what is certified is broken, or the strongest leaves more than another column."""
    for heading, mask in masks.items():
        for inner in {STRONGEST, CERTIFIED} - ({STRONGEST} if heading == CERTIFIED else set()):
            wrong = [i for i, (held, outer) in enumerate(zip(masks[inner], mask, strict=True)) if held and not outer]
            if wrong:
                raise ArithmeticError(f"{name}: inputs {wrong} are {inner} and do not withstand {heading}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, work, and write what is known, also after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = tuple(defences(Scale.epsilon))
    parser.add_argument("--folder", type=Path, default=Path("runs/attack-defence"))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epsilon", type=float, default=Scale.epsilon)
    parser.add_argument("--quick", action="store_true", help="tiny networks, few inputs, short attacks: a minute")
    parser.add_argument("--inputs", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--train", type=int, help="images to train on")
    parser.add_argument("--seconds", type=float, help="of the exact search, an input that no attack broke")
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
    options = parser.parse_args(arguments)
    given = {
        name: getattr(options, name) for name in ("inputs", "epochs", "train", "seconds") if getattr(options, name)
    }
    scale = dataclasses.replace(QUICK if options.quick else Scale(), epsilon=options.epsilon, **given)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    matrix = Matrix(scale, options.data, options.folder, options.data_dir)
    stopped = False
    try:
        matrix.work(options.rows)
    except KeyboardInterrupt:
        stopped = True
        print("stopped; the same command goes on", file=sys.stderr)
    matrix.write()
    return 130 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
