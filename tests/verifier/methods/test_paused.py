"""A search that stops and goes on is the search that never stopped; what an exception ended is never gone on with."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import Network
from encoders.ops import Affine, Sigmoid
from tests.networks.batches import random_batch
from tests.networks.chains import chain, random_relu_network
from tests.oracles.polygons import least_margin
from tests.seeds import seeds
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.bounds.inputs import search as box_search
from verifier.bounds.inputs.search import BoxSearch, decide_box
from verifier.bounds.split import search as ball_search
from verifier.bounds.split.answer import SplitAnswer
from verifier.bounds.split.search import BallSearch, decide_ball
from verifier.budget import Budget, Overrun, Watch
from verifier.certificates.conjunctions import Conjunctions
from verifier.methods.crown import CrownMethod
from verifier.methods.exact import ExactMethod
from verifier.methods.input_split import InputSplitMethod
from verifier.methods.paused import Paused
from verifier.methods.portfolio import PortfolioMethod
from verifier.verdict import Telling

UNIT = Box(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))


def _never(points: Tensor) -> bool:
    return False


def _hard() -> tuple[Network, Batch]:
    """Return a network and an input whose ball of .1 takes some dozen subproblems or boxes."""
    network = random_relu_network(11, (6, 24, 24, 3))
    return network, random_batch(network, 1, 11)


@pytest.mark.parametrize(("seed", "radius"), [(3, 0.0773), (6, 0.1242), (11, 0.1523), (1, 0.2)])
def test_a_ball_decided_bit_by_bit_has_the_tree_of_one_decided_at_once(seed: int, radius: float, monkeypatch) -> None:
    """Three balls are just within the radius that can be proved, the last has a counterexample that nobody tries."""
    monkeypatch.setattr(ball_search, "BATCH", 2)
    network = random_relu_network(seed, (6, 24, 24, 3))
    batch = random_batch(network, 1, seed)
    question = network, batch.region(radius), int(batch.classes[0])
    whole = decide_ball(*question, _never, Budget(), 60)
    search, answers = BallSearch(*question), list[SplitAnswer]()
    while not answers or (search.under_way and answers[-1].subproblems < 60):
        answers.append(search.run(_never, Budget(), 1 + (answers[-1].subproblems if answers else 0)))
    assert len(answers) > 3 and answers[-1].subproblems == whole.subproblems
    assert answers[-1].programs == whole.programs and answers[-1].proved is whole.proved is (radius != 0.2)
    if whole.certificate is None or answers[-1].certificate is None:
        return
    for ours, theirs in zip(answers[-1].certificate.trees, whole.certificate.trees, strict=True):
        for field in fields(ours):
            assert np.array_equal(getattr(ours, field.name), getattr(theirs, field.name)), field.name


def test_a_search_that_filled_the_memory_is_let_go_and_one_out_of_time_is_kept(monkeypatch) -> None:
    monkeypatch.setattr(ball_search, "BATCH", 2)
    network, batch = _hard()
    watch, calls = Watch(), list[int]()

    def filling(points: Tensor) -> bool:
        calls.append(len(points))
        if len(calls) == 6:
            watch.memory = 1
        return False

    asked = network, batch.region(0.1523), int(batch.classes[0])
    search = BallSearch(*asked)
    answer = search.run(_never, Budget(), 9)
    assert "subproblems" in answer.reason and search.under_way
    monkeypatch.setattr(ball_search, "attacked", lambda ball, attack, points, *_: attack(points))
    answer = search.run(filling, Budget(watch=watch), 4000)
    assert answer.reason.startswith("memory limit") and not search.under_way


@pytest.mark.parametrize("before_compiled", [0, 10**9])
@pytest.mark.parametrize("seed", seeds(4, 50))
def test_boxes_decided_bit_by_bit_are_those_decided_at_once(seed: int, before_compiled: int, monkeypatch) -> None:
    monkeypatch.setattr(box_search, "BEFORE_COMPILED", before_compiled)
    monkeypatch.setattr(box_search, "BATCH", 4)
    monkeypatch.setattr(box_search, "sampled", lambda *_: ())
    network = random_relu_network(seed, (2, 8, 6, 3)).cast(torch.float64, torch.device("cpu"))
    for winner in range(3):
        margin = least_margin(network, [0.0, 0.0], [1.0, 1.0], winner)
        asked = Conjunctions.of_class(network, winner)
        whole = decide_box(asked, UNIT, lambda _: True, Budget(), 5_000)
        search = BoxSearch(asked, UNIT)
        answer = search.run(lambda _: True, Budget(), 0)
        while not (answer.proved or answer.falsified):
            assert answer.boxes < 5_000
            answer = search.run(lambda _: True, Budget(), answer.boxes + 3)
        assert answer.proved is (margin > 0) is whole.proved and answer.falsified is whole.falsified
        if answer.proved:
            assert answer.boxes == whole.boxes


def test_a_stopped_search_keeps_to_its_next_budget_and_says_how_it_stands() -> None:
    network, batch = _hard()
    search = BallSearch(network, batch.region(0.1523), int(batch.classes[0]))
    first = search.run(_never, Budget(), 1)
    again = search.run(_never, Budget(0.0), 10**6)
    assert search.under_way and again.subproblems == first.subproblems and not again.proved
    assert again.reason.startswith("time limit; ") and again.telling is Telling.STANDING
    late = BallSearch(network, batch.region(0.1523), int(batch.classes[0]))
    answer = late.run(_never, Budget(0.0), 10**6)
    assert not late.under_way and answer.telling is Telling.LIMIT


def test_a_search_that_an_exception_ended_is_not_gone_on_with(monkeypatch) -> None:
    def broken(*_: object) -> bool:
        raise Overrun("time limit")

    network = random_relu_network(5, (2, 8, 6, 3)).cast(torch.float64, torch.device("cpu"))
    winner = next(k for k in range(3) if least_margin(network, [0.0, 0.0], [1.0, 1.0], k) <= 0)
    boxes = BoxSearch(Conjunctions.of_class(network, winner), UNIT)
    with pytest.raises(Overrun):
        boxes.run(broken, Budget(), 100)
    with pytest.raises(RuntimeError, match="has lost boxes"):
        boxes.run(_never, Budget(), 100)
    # What a counterexample ends has lost the boxes beside it.
    found = BoxSearch(Conjunctions.of_class(network, winner), UNIT)
    assert found.run(lambda points: True, Budget(), 10**6).falsified
    with pytest.raises(RuntimeError, match="has lost boxes"):
        found.run(_never, Budget(), 10**6)
    hard, batch = _hard()
    ball = BallSearch(hard, batch.region(0.1523), int(batch.classes[0]))
    ball.run(_never, Budget(), 1)
    assert ball.under_way
    monkeypatch.setattr(ball_search, "attacked", broken)
    with pytest.raises(Overrun):
        ball.run(_never, Budget(), 10**6)
    assert not ball.under_way
    paused = Paused()
    paused.keep("exact", ball)
    assert "exact" in paused and paused.take("exact", BallSearch) is ball and "exact" not in paused
    paused.keep("exact", ball)
    assert paused.take("exact", BoxSearch) is None


def test_stages_of_one_name_go_on_with_one_search_and_inputs_share_none(monkeypatch) -> None:
    begun: list[str] = []
    for module, name in ((ball_search, "split_question"), (box_search, "BoxStore")):
        made = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *asked, made=made, name=name: (begun.append(name), made(*asked))[1])
    stages = [
        ExactMethod(subproblems=1, refinements=0),
        InputSplitMethod(boxes=1, refinements=0),
        ExactMethod(subproblems=3, refinements=0),
        InputSplitMethod(boxes=3, refinements=0),
    ]
    _, batch = _hard()
    portfolio = PortfolioMethod(stages)
    (answer,) = portfolio.decide(batch, batch.region(0.1523), Budget())
    assert begun == ["split_question", "BoxStore"] or answer.witness is not None
    assert answer.witness is not None or len(answer.spent) == 4
    # Nothing outlives the call, and of two inputs nothing is kept.
    begun.clear()
    portfolio.decide(batch, batch.region(0.1523), Budget())
    assert begun == ["split_question", "BoxStore"]
    begun.clear()
    two = batch.at(torch.tensor([0, 0]))
    answers = portfolio.decide(two, two.region(0.1523), Budget())
    assert len(begun) == sum(len(answer.spent) for answer in answers) == 8


def test_slopes_are_left_out_where_the_search_over_signs_is_under_way() -> None:
    stages = [
        ExactMethod(subproblems=1, refinements=0),
        CrownMethod("alpha-crown", steps=1, refinements=0),
        InputSplitMethod(boxes=1, refinements=0),
    ]
    portfolio = PortfolioMethod(stages, idle_after={"alpha-crown": "exact"})
    _, hard = _hard()
    curved = random_batch(_curved(), 1, 0)
    for batch, radius, names in (
        (hard, 0.1523, ["exact", "input-split"]),
        (curved, 10.0, ["alpha-crown"]),
    ):
        (answer,) = portfolio.decide(batch, batch.region(radius), Budget())
        assert [spent.stage for spent in answer.spent][: len(names)] == names


def test_the_reason_that_says_most_stays() -> None:
    limit, standing = Answer.open("time limit"), Answer.open("34 are open", telling=Telling.STANDING)
    final = Answer.open("a tie", telling=Telling.FINAL)
    assert limit.explained(standing).reason == standing.explained(limit).reason == "34 are open"
    assert standing.explained(final).reason == "a tie" and Answer().explained(limit).reason == "time limit"
    assert Answer.open("later").explained(limit).reason == "later"
    assert limit.merge(standing).telling is Telling.STANDING and standing.merge(Answer()).telling is Telling.STANDING


def _curved() -> Network:
    torch.manual_seed(0)
    return chain((4,), Affine(torch.randn(12, 4)), Sigmoid(), Affine(torch.randn(3, 12)))
