"""A certificate as SMT-LIB 2, which solvers of linear arithmetic confirm that share nothing with this package.

The text states the ball and a fully connected network of relus in exact rationals, and asks one question after the
other, each of which must be answered `unsat`: whether a value that relus read lies outside its box, layer by layer,
where what was refuted is stated from then on, with the line above each relu that follows (Ehlers 2017); whether the
signs of a tree's leaves leave any out; and for each leaf whether the rival reaches the winner under its signs. The
numbers of leaves (slopes, multipliers) are not needed: a solver finds its own. Other ops than affine ones, relus and
reshapes, trees of inputs and of contraction have no such text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch

from encoders.network import INPUT, Network, Node
from encoders.region import domain_ends
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.sign_tree import leaf_signs


def smt_text(certificate: Certificate, network: Network) -> Iterator[str]:
    """Yield the lines of a text all of whose `check-sat` are to say `unsat`.

    The certificate holds if they do. Raises CertificateError for networks and certificates of other kinds, and where
    the certificate is about another network.
    """
    if network.digest != certificate.digest or not certificate.trees:
        raise CertificateError("it is about another network, or no tree of signs")
    for node in network.nodes:
        if not (_is_affine(network, node) or node.op.hinge_slope == 0.0 or node.op.keeps_values):
            raise CertificateError(f"node {node.name!r} ({node.op.kind}): SMT-LIB is of affine ops, relus and reshapes")
    program = certificate.program(network)
    yield "(set-logic QF_LRA)"
    values = {INPUT: [f"x{i}" for i in range(certificate.centre.size)]}
    yield from _ball(certificate, values[INPUT])
    sources = list[str]()
    for number, node in enumerate(network.nodes):
        given = values[node.inputs[0]]
        names = [f"v{number}_{i}" for i in range(math.prod(network.shapes[node.name]))]
        values[node.name] = given if node.op.keeps_values else names
        if node.op.hinge_slope is not None:
            low, high = (end[0].tolist() for end in program.ends(node.inputs[0]))
            yield from _boxes(given, low, high)
            for x, y, a, b in zip(given, names, low, high, strict=True):
                yield from _relu(x, y, Fraction(a), Fraction(b))
            sources += given
        elif not node.op.keeps_values:
            for name, row in zip(names, _rows(node, len(names), given), strict=True):
                yield f"{_declared(name)}\n{_asserted(f'(= {name} {row})')}"
    outputs = values[network.output.name]
    for tree in certificate.trees:
        signs = leaf_signs(tree.splits, len(sources))
        yield from _covers(tree.rival, signs)
        for leaf in signs:
            yield "(push 1)"
            yield from (_asserted(f"({'>=' if sign > 0 else '<='} {sources[u]} 0.0)") for u, sign in _split(leaf))
            yield _asserted(f"(>= {outputs[tree.rival]} {outputs[certificate.winner]})")
            yield "(check-sat)\n(pop 1)"


def _is_affine(network: Network, node: Node) -> bool:
    """Return whether a node stores a row of weights for each value of a vector."""
    return (
        len(network.shapes[node.inputs[0]]) == 1 and node.op.unit_rows(torch.zeros(1, 1, dtype=torch.long)) is not None
    )


def _ball(certificate: Certificate, names: Sequence[str]) -> Iterator[str]:
    """State the exact ball, cut to the domain."""
    shape, radius = certificate.centre.shape, Fraction(certificate.radius)
    ends = domain_ends(certificate.domain, torch.from_numpy(certificate.centre.astype(np.float64)))
    least, greatest = (end.expand((1, *shape)).flatten().tolist() for end in ends)
    for name, c, a, b in zip(names, certificate.centre.flatten().tolist(), least, greatest, strict=True):
        low, high = Fraction(c) - radius, Fraction(c) + radius
        low = low if a == -np.inf else max(low, Fraction(a))
        high = high if b == np.inf else min(high, Fraction(b))
        yield _declared(name)
        yield _asserted(f"(<= {_number(low)} {name} {_number(high)})")


def _rows(node: Node, count: int, given: Sequence[str]) -> list[str]:
    """Return the sums that an affine op computes of values."""
    stored = node.op.unit_rows(torch.arange(count)[None])
    assert stored is not None
    weight, bias = stored[0][0].double().tolist(), stored[1]
    rows = []
    for row, constant in zip(weight, [0.0] * count if bias is None else bias[0].double().tolist(), strict=True):
        terms = [f"(* {_number(Fraction(w))} {name})" for w, name in zip(row, given, strict=True) if w]
        rows.append(f"(+ {' '.join(terms)} {_number(Fraction(constant))} 0.0)")
    return rows


def _boxes(names: Sequence[str], low: Sequence[float], high: Sequence[float]) -> Iterator[str]:
    """Ask whether a value lies outside its box, and state from then on that none does."""
    outside = " ".join(
        f"(< {name} {_number(Fraction(a))}) (> {name} {_number(Fraction(b))})"
        for name, a, b in zip(names, low, high, strict=True)
    )
    yield f"(push 1)\n{_asserted(f'(or {outside})')}\n(check-sat)\n(pop 1)"
    for name, a, b in zip(names, low, high, strict=True):
        yield _asserted(f"(<= {_number(Fraction(a))} {name} {_number(Fraction(b))})")


def _relu(x: str, y: str, low: Fraction, high: Fraction) -> Iterator[str]:
    """State y = max(x, 0), x in [low, high]: as one of its sides where the box has one sign."""
    yield _declared(y)
    if low >= 0 or high <= 0:
        yield _asserted(f"(= {y} {x if low >= 0 else '0.0'})")
        return
    yield _asserted(f"(and (>= {y} 0.0) (>= {y} {x}) (or (<= {y} 0.0) (<= {y} {x})))")
    # The line through (low, 0) and (high, high).
    yield _asserted(f"(<= (* {_number(high - low)} {y}) (* {_number(high)} (- {x} {_number(low)})))")


def _covers(rival: int, signs: np.ndarray) -> Iterator[str]:
    """Ask whether signs of units leave out some that no leaf of a tree has."""
    used = sorted({unit for leaf in signs for unit, _ in _split(leaf)})
    yield "(push 1)"
    yield from (f"(declare-const s{rival}_{unit} Bool)" for unit in used)
    leaves = []
    for leaf in signs:
        words = [f"s{rival}_{unit}" if sign > 0 else f"(not s{rival}_{unit})" for unit, sign in _split(leaf)]
        leaves.append(f"(and true {' '.join(words)})")
    yield _asserted(f"(not (or false {' '.join(leaves)}))")
    yield "(check-sat)\n(pop 1)"


def _split(leaf: np.ndarray) -> list[tuple[int, int]]:
    return [(unit, int(leaf[unit])) for unit in np.flatnonzero(leaf).tolist()]


def _declared(name: str) -> str:
    return f"(declare-const {name} Real)"


def _asserted(formula: str) -> str:
    return f"(assert {formula})"


def _number(value: Fraction) -> str:
    """Return a rational as SMT-LIB has it."""
    text = (
        f"(/ {abs(value.numerator)}.0 {value.denominator}.0)" if value.denominator > 1 else f"{abs(value.numerator)}.0"
    )
    return f"(- {text})" if value < 0 else text
