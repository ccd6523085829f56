"""The store loses and mixes up no subproblems; trees come out in the order in which a certificate's leaves are read."""

import heapq

import numpy as np
import pytest
import torch

from tests.seeds import seeds
from verifier.bounds.split.subproblems import Forest, Subproblems, SubproblemStore
from verifier.certificates.sign_tree import LEAF, leaf_signs


def subproblems_of(bounds: np.ndarray, numbers: np.ndarray, units: int = 3) -> Subproblems:
    """Return the subproblems of some numbers, each field of which but the bound follows from its number."""
    nodes = torch.from_numpy(numbers.astype(np.int64))
    each = nodes[:, None] + 0.25 * torch.arange(units)
    signs = (nodes[:, None] // 3 ** torch.arange(units) % 3 - 1).to(torch.int8)
    bounds = torch.from_numpy(bounds.astype(np.float32))
    return Subproblems(bounds, nodes, nodes % 7, nodes % 5, signs, each, -each, each[:, 1:] + 0.5)


def assert_whole(subproblems: Subproblems, bounds: dict[int, float]) -> None:
    """Check that each subproblem taken still has all that was added with it."""
    numbers = subproblems.nodes.numpy()
    same = subproblems_of(
        np.array([bounds[number] for number in numbers.tolist()]), numbers, subproblems.signs.shape[1]
    )
    for name in ("bounds", "nodes", "rows", "signs", "slopes", "multipliers", "points"):
        assert torch.equal(getattr(subproblems, name), getattr(same, name)), name


@pytest.mark.parametrize("seed", seeds(2, 6))
def test_the_store_is_a_queue_of_least_bounds_over_growth_and_reuse(seed):
    """Against a plain heap: additions of 0 to 3000 subproblems grow the arrays twice or more, places are used again."""
    generator = np.random.default_rng(seed)
    store, bounds = SubproblemStore(), dict[int, float]()
    waiting: list[float] = []
    taken: set[int] = set()
    first = 0
    for _ in range(25):
        count = int(generator.choice([0, 1, 5, 300, 3000]))
        drawn = generator.choice([generator.normal(size=count), np.round(generator.normal(size=count))], axis=0)
        drawn = np.where(generator.random(count) < 0.05, -np.inf, drawn).astype(np.float32)
        subproblems = subproblems_of(drawn, first + np.arange(count))
        store.add(subproblems)
        bounds |= dict(zip(subproblems.nodes.tolist(), drawn.tolist(), strict=True))
        for value in drawn.tolist():
            heapq.heappush(waiting, value)
        first += count
        # What was added may be overwritten by its owner.
        subproblems.slopes.fill_(torch.nan)
        assert len(store) == len(waiting)
        if len(store):
            found = store.take(int(generator.choice([1, 2, 256, 10_000])))
            assert_whole(found, bounds)
            assert found.bounds.tolist() == [heapq.heappop(waiting) for _ in range(len(found))]
            numbers = found.nodes.tolist()
            assert len(set(numbers)) == len(numbers) and not taken & set(numbers)
            taken |= set(numbers)
    while len(store):
        found = store.take(1000)
        assert_whole(found, bounds)
        assert found.bounds.tolist() == [heapq.heappop(waiting) for _ in range(len(found))]
        assert not taken & set(found.nodes.tolist())
        taken |= set(found.nodes.tolist())
    assert taken == set(range(first)) and not waiting


def test_a_batch_that_was_taken_stays_while_its_places_are_used_again():
    store = SubproblemStore()
    store.add(subproblems_of(np.arange(1000.0), np.arange(1000)))
    found = store.take(1000)
    before = found.slopes.clone()
    store.add(subproblems_of(np.arange(1000.0), 5000 + np.arange(1000)))
    assert torch.equal(found.slopes, before) and found.nodes.tolist() == list(range(1000))
    assert len(store) == 1000


def test_places_are_used_again():
    """A hundred rounds of a thousand subproblems need no more room than one."""
    store = SubproblemStore()
    for number in range(100):
        store.add(subproblems_of(np.arange(1000.0), 1000 * number + np.arange(1000)))
        assert len(store.take(1000)) == 1000
    assert len(store._blocks) == 1


def test_subproblems_of_no_units_can_wait():
    store = SubproblemStore()
    store.add(subproblems_of(np.array([2.0, 1.0]), np.arange(2), units=0))
    assert store.take(5).nodes.tolist() == [1, 0] and len(store) == 0


@pytest.mark.parametrize("seed", range(40))
def test_leaves_of_a_tree_are_those_of_its_nodes_in_the_order_of_the_check(seed):
    """Random trees of several rows, split and closed in any order: each leaf's numbers stand beside its own signs."""
    generator = np.random.default_rng(seed)
    rows, units = int(generator.integers(1, 4)), 6
    forest = Forest(rows)
    signs = {row: np.zeros(units, dtype=np.int8) for row in range(rows)}
    row_of = {row: row for row in range(rows)}
    leaves: dict[int, dict[bytes, int]] = {row: {} for row in range(rows)}
    open_nodes = list(range(rows))
    while open_nodes:
        node = open_nodes.pop(int(generator.integers(len(open_nodes))))
        free = np.flatnonzero(signs[node] == 0)
        if generator.random() < 0.45 or not len(free):
            forest.close(node, np.array([node, node + 0.5]), np.array([-node, 1.0]))
            leaves[row_of[node]][signs[node].tobytes()] = node
            continue
        unit = int(generator.choice(free))
        first = forest.split(node, unit)
        for child, sign in ((first, 1), (first + 1, -1)):
            assert child not in signs, "numbers of nodes are used once"
            signs[child], row_of[child] = signs[node].copy(), row_of[node]
            signs[child][unit] = sign
            open_nodes.append(child)
    for row in range(rows):
        tree = forest.tree(row, row + 10, np.arange(2))
        assert tree.rival == row + 10
        found = leaf_signs(tree.splits, units)
        expected = [leaves[row][subproblem.tobytes()] for subproblem in found]
        slopes, multipliers = tree.numbers(slice(None), found[:, :2])
        assert slopes[:, 0].tolist() == expected and multipliers[:, 0].tolist() == [-node for node in expected]
        assert len(expected) == len(leaves[row]) == int((tree.splits == LEAF).sum())


def test_a_tree_with_an_open_leaf_is_not_made():
    forest = Forest(1)
    first = forest.split(0, 2)
    forest.close(first, np.zeros(1), np.zeros(1))
    with pytest.raises(KeyError):
        forest.tree(0, 1, np.arange(1))
    forest.close(first + 1, np.ones(1), np.zeros(1))
    assert forest.tree(0, 1, np.arange(1)).slopes.tolist() == [[0.0], [1.0]]


def test_leaves_of_both_precisions_keep_their_numbers():
    """Ascent leaves float32 numbers, programs float64: side by side they are float64, none rounded."""
    forest = Forest(1)
    first = forest.split(0, 0)
    forest.close(first, np.array([0.1], dtype=np.float32), np.array([0.1], dtype=np.float32))
    forest.close(first + 1, np.array([0.1]), np.array([1e300]))
    tree = forest.tree(0, 1, np.arange(1))
    slopes, multipliers = tree.numbers(slice(None), leaf_signs(tree.splits, 1))
    assert slopes[:, 0].tolist() == [float(np.float32(0.1)), 0.1]
    assert multipliers[:, 0].tolist() == [float(np.float32(0.1)), 1e300]
