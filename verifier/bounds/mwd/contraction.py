"""Backward contraction and branching for MWD networks: decide whether a box holds a counterexample.

A counterexample of class c against k needs, in the last layer, one distance at most tau and another at least tau
for some tau. A unit with z_j <= b confines *every* input to [w_i - b/u_i, w_i + b/u_i]: a box. A unit with
z_j >= a is a clause: *some* input has y_i >= w_i + a/u_i or y_i <= w_i - a/u_i; with one literal left, it is forced.
Forward ranges and these two rules are repeated until nothing moves; an empty range refutes. What is left is split:
on tau, or on a literal at v - delta with both closed halves overlapping (a literal kept closed at v would never
become false). The midpoint of every node is evaluated as an attack. No published use for these networks is known;
the scheme is that of interval constraint solvers (Benhamou et al. 1999) and of lazy clause generation, and like theirs
the search is complete up to delta: a node where every clause holds up to delta is left as UNDECIDED.

Direction: `REFUTED` is a proof in real arithmetic: every bound is moved outward by more than its rounding error.
Compiled by numba, float64. Covers chains of MWD layers with Gaussian and linear links, the last layer's units of one
type or mixed (`contraction_threshold`).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from encoders.kept_loops import interpreted, kept
from verifier.bounds.mwd.contraction_network import PackedNetwork, pack
from verifier.bounds.mwd.contraction_node import choose, contract, evaluate
from verifier.bounds.mwd.contraction_rules import Array, copy_into
from verifier.bounds.mwd.contraction_threshold import compared_pair

REFUTED, FOUND, STOPPED, UNDECIDED = 0, 1, 2, 3

# Where a literal at v is split: v - DELTA (1 + |v|), in units of a hidden output or pixel. Far above rounding, and far
# below what outputs of networks that squeeze their inputs differ by (with 1e-9 such networks stayed open).
DELTA = 1e-12
# A range of tau this narrow, relative to 1 + |tau|, is not halved.
TAU_DELTA = 1e-14
# A literal that is true up to this multiple of it counts as true: the bounds of a node made true move on a little.
SATISFIED = 2.0
# Forward and backward passes over one node, and the greatest move of the last; later ones move little.
SWEEPS, PROGRESS = 8, 1e-3
# The same for a node with nothing left to split, before it is given up.
LAST_SWEEPS, LAST_PROGRESS = 200, 1e-12
MAXIMUM_DEPTH = 400
# What became of the node on top of the stack: its midpoint was a point found, or was so again after the last passes.
TAKEN, TAKEN_AGAIN = 1, 2

__all__ = [
    "FOUND",
    "REFUTED",
    "STOPPED",
    "UNDECIDED",
    "Answer",
    "BoxSearch",
    "PackedNetwork",
    "is_compiled",
    "pack",
    "search",
    "split",
]


@dataclass(frozen=True, eq=False)
class Answer:
    """What the search says so far.

    code: REFUTED (proof), FOUND (`point` looks unsafe), STOPPED (nodes are left) or UNDECIDED (none is left, but some
    were given up). nodes: boxes examined. width: how far the midpoints of nodes given up are from being unsafe, as
    the greatest difference of the two compared distances; infinite where the depth was the reason.
    """

    code: int
    nodes: int
    point: Array
    width: float = 0.0


class BoxSearch:
    """The search of one box for a point where `other` wins against or ties `reference`; it can be continued.

    lower, upper: ends of the box, 1-D float64.
    """

    def __init__(self, network: PackedNetwork, lower: Array, upper: Array, reference: int, other: int) -> None:
        if not (np.abs(lower).max() < network.limit and np.abs(upper).max() < network.limit):
            raise ValueError(f"contraction takes boxes within +-{network.limit:g}")
        last = slice(int(network.unit_offset[-1]), None)
        self._network = network
        self._pair, self._shifts = compared_pair(network.kind[last], network.bias[last], reference, other)
        self._lower, self._upper = (np.empty((MAXIMUM_DEPTH + 2, network.size)) for _ in range(2))
        self._lower[0], self._upper[0] = -math.inf, math.inf
        self._lower[0, : len(lower)], self._upper[0, : len(lower)] = lower, upper
        self._tau = np.tile([-math.inf, math.inf], (MAXIMUM_DEPTH + 2, 1))
        # Nodes on the stack, nodes examined, TAKEN for the topmost, nodes given up.
        self._counts = np.array([1, 0, 0, 0], dtype=np.int64)
        self._width = np.zeros(1)

    @property
    def nodes(self) -> int:
        """How many nodes have been examined."""
        return int(self._counts[1])

    def run(self, nodes: int) -> Answer:
        """Return the answer after at most so many further nodes.

        After FOUND, the next call takes the point as none, and goes on.
        """
        return self._answer(_run, nodes)

    def run_uncompiled(self, nodes: int) -> Answer | None:
        """Return the same from Python, several hundred times as slowly; None, with nothing done, where that fails."""
        states = (self._lower, self._upper, self._tau, self._counts, self._width)
        before = [state.copy() for state in states]
        try:
            with np.errstate(all="ignore"):
                return self._answer(_uncompiled(), nodes)
        except (ArithmeticError, ValueError):
            # Of math, beyond the range of a function: compiled loops go on with an infinity or NaN.
            for state, kept_state in zip(states, before, strict=True):
                state[:] = kept_state
            return None

    def _answer(self, loop: Callable[..., Any], nodes: int) -> Answer:
        stack, limit = (self._lower, self._upper, self._tau), self.nodes + nodes
        code, point = loop(self._network, self._pair, self._shifts, stack, self._counts, self._width, limit)
        return Answer(int(code), self.nodes, point, float(self._width[0]))


def search(network: PackedNetwork, lower: Array, upper: Array, reference: int, other: int, nodes: int) -> Answer:
    """Return what `BoxSearch` says after at most so many nodes."""
    return BoxSearch(network, lower, upper, reference, other).run(nodes)


def is_compiled() -> bool:
    """Return whether the search has been compiled, or read from where compiled loops are kept, by this process."""
    return bool(_run.signatures)


@functools.cache
def _uncompiled() -> Callable[..., Any]:
    return interpreted(_run)


@kept("contraction*.py")
def _run(network, pair, shifts, stack, counts, width, limit):  # type: ignore[no-untyped-def]
    """Examine the nodes on the stack depth first, children of true literals first; return (code, point)."""
    stack_lower, stack_upper, stack_tau = stack
    pixels = network.inputs[0]
    while counts[0] > 0:
        at = counts[0] - 1
        lower, upper, tau = stack_lower[at].copy(), stack_upper[at].copy(), stack_tau[at].copy()
        if counts[2] == 0:
            if counts[1] >= limit:
                return STOPPED, 0.5 * (lower[:pixels] + upper[:pixels])
            counts[1] += 1
            if not contract(network, lower, upper, tau, pair, shifts, SWEEPS, PROGRESS):
                counts[0] = at
                continue
            if evaluate(network, lower, upper, pair, shifts) <= 0.0:
                put_back(stack, at, lower, upper, tau)
                counts[2] = TAKEN
                return FOUND, 0.5 * (lower[:pixels] + upper[:pixels])
        counts[0], is_taken, counts[2] = at, counts[2] == TAKEN_AGAIN, 0
        layer, literal, threshold = choose(network, lower, upper, tau, pair, shifts, SATISFIED * DELTA)
        narrow = tau[1] - tau[0] <= TAU_DELTA * (1.0 + abs(tau[0]))
        if layer < 0 and narrow and not is_taken:
            if not contract(network, lower, upper, tau, pair, shifts, LAST_SWEEPS, LAST_PROGRESS):
                continue
            layer, literal, threshold = choose(network, lower, upper, tau, pair, shifts, SATISFIED * DELTA)
        if at + 2 > MAXIMUM_DEPTH or (layer < 0 and narrow):
            short = evaluate(network, lower, upper, pair, shifts)
            if short <= 0.0 and not is_taken:
                put_back(stack, at, lower, upper, tau)
                counts[0], counts[2] = at + 1, TAKEN_AGAIN
                return FOUND, 0.5 * (lower[:pixels] + upper[:pixels])
            counts[3] += 1
            width[0] = max(width[0], short if layer < 0 and narrow else math.inf)
            continue
        # Literals first: they say more than halves of tau, which is split where no clause is left (a quarter of tau
        # first took up to five times the nodes on hard formulas).
        place = 0 if layer < 0 else network.starts[layer] + abs(literal) - 1
        halves = (stack_lower[at:], stack_upper[at:], stack_tau[at:])
        counts[0] += split(halves, lower, upper, tau, layer < 0, place, literal, threshold)
    return (UNDECIDED if counts[3] > 0 else REFUTED), 0.5 * (stack_lower[0, :pixels] + stack_upper[0, :pixels])


@kept("contraction*.py")
def put_back(stack, at, lower, upper, tau):  # type: ignore[no-untyped-def]
    """Write a node to its place on the stack."""
    copy_into(stack[0][at], lower)
    copy_into(stack[1][at], upper)
    copy_into(stack[2][at], tau)


@kept("contraction*.py")
def split(halves, lower, upper, tau, on_tau, place, literal, threshold):  # type: ignore[no-untyped-def]
    """Write the closed halves of a node, which cover it, into arrays; return how many are not empty.

    The false half comes first, so that the true one is on top of the stack.
    """
    count = 0
    moved = threshold - math.copysign(DELTA * (1.0 + abs(threshold)), literal)
    for child in range(2):
        ends, taus = (halves[0][count], halves[1][count]), halves[2][count]
        copy_into(ends[0], lower)
        copy_into(ends[1], upper)
        copy_into(taus, tau)
        if on_tau:
            taus[1 - child] = 0.5 * (tau[0] + tau[1])
        elif (literal > 0) == (child == 0):
            ends[1][place] = min(upper[place], moved)
        else:
            ends[0][place] = max(lower[place], moved)
        count += ends[0][place] <= ends[1][place]
    return count
