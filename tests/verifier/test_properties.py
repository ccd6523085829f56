"""A property as a question: the region is the box, margins of the model have exact signs, witnesses are exact."""

import numpy as np
import pytest
import torch

from encoders.ops import Affine, Op, Sigmoid, Softmax, Tanh
from encoders.property import Halfspaces, Property
from encoders.questions import always_largest, never_largest
from tests.networks.chains import chain
from verifier.agreement import Agreement
from verifier.bounds.interval import proves
from verifier.properties import PropertyWitness, ask, run_margins, unproved
from verifier.subject import Subject


def subject_of(network, runtime=None) -> Subject:
    run = runtime or (lambda x: network.evaluate(x).numpy())
    return Subject("model", network, run, torch.device("cpu"), Agreement("model", network, run, 1.0))


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_the_region_is_the_box_and_its_centre_a_number_of_the_model() -> None:
    network = chain((3,), Affine(torch.ones(2, 3)))
    lower, upper = values(0.1, -2.0, 1e-3), values(0.1, 3.3, 2e-3)
    question = ask(subject_of(network), Property(lower, upper, (Halfspaces(values(1, 0)[None], values(0)),)), 0)
    enclosure = question.region.enclosure()
    assert torch.equal(enclosure.lower[0], lower) and torch.equal(enclosure.upper[0], upper)
    centre = question.region.centre[0]
    # .1 is no float32, the middles of the other sides are rounded to one.
    assert float(centre[0]) == 0.1 and torch.equal(centre[1:], centre[1:].float().double())


def test_margins_of_the_model_have_exact_signs() -> None:
    # 1e16 + 1 - 1e16 is 0 in float64: the sum is 1, so the row <= .5 is not satisfied.
    outputs = np.array([[1e16, 1.0, -1e16], [0.0, 0.5, 0.0], [np.nan, 0.0, 0.0], [-np.inf, 0.0, 0.0]])
    subject = Subject("model", chain((1,), Affine(torch.ones(3, 1))), lambda x: outputs, torch.device("cpu"))
    margins = run_margins(subject, [Halfspaces(values(1, 1, 1)[None], values(0.5))], np.zeros((4, 1)))
    assert margins[:, 0].tolist() == [0.0] * 4
    assert (margins[:, 1] >= 0).tolist() == [False, True, False, False] and np.isfinite(margins).all()


def test_a_strict_row_is_not_held_by_its_edge() -> None:
    network = chain((1,), Affine(torch.ones(2, 1)))
    point = torch.tensor([[0.5]])
    closed, strict = (Halfspaces(values(1, 0)[None], values(0.5), mark) for mark in ((), (True,)))
    assert unproved(network, (closed,), point) is None
    assert "rounding" in str(unproved(network, (strict,), point))
    asked = Property(values(0.5), values(0.5), (strict,))
    assert isinstance(ask(subject_of(network), asked, 0).confirm(point[0]), str)


def test_what_leaves_the_rationals_is_shown_by_an_enclosure_or_not_at_all() -> None:
    network = chain((1,), Affine(torch.ones(2, 1)), Sigmoid())
    zero = torch.zeros(1, 1)
    assert unproved(network, (Halfspaces(values(1, 0)[None], values(0.6)),), zero) is None
    assert "rational" in str(unproved(network, (Halfspaces(values(1, 0)[None], values(0.5)),), zero))


def test_a_point_counts_only_if_the_model_itself_is_unsafe_there() -> None:
    network = chain((1,), Affine(torch.ones(2, 1)))
    asked = Property(values(0), values(1), (Halfspaces(values(1, 0)[None], values(0.5)),))
    honest = ask(subject_of(network), asked, 0)
    assert isinstance(honest.confirm(torch.tensor([0.25])), PropertyWitness)
    assert isinstance(honest.confirm(torch.tensor([0.75])), str)
    # The model rounds upward by a little, which agreement explains: its outputs are not unsafe.
    above = ask(subject_of(network, lambda x: np.nextafter(network.evaluate(x).numpy(), np.float32(9))), asked, 0)
    assert "execution" in str(above.confirm(torch.tensor([0.5])))


def test_the_class_form_is_asked_about_the_model_itself() -> None:
    network = chain((2,), Affine(torch.eye(2)))
    question = ask(subject_of(network), always_largest([0.5, 0.0], [1.0, 0.25], 0, 2), 0)
    assert question.network is network and question.batch.classes.tolist() == [0]


@pytest.mark.parametrize("end", [Sigmoid(), Softmax(0), Tanh()])
def test_a_property_of_the_order_of_outputs_is_decided_before_ops_that_keep_it(end: Op) -> None:
    network = chain((2,), Affine(40.0 * torch.eye(2)), end)
    for asked in (always_largest([1.0, 0.5], [1.0, 0.75], 0, 2), never_largest([1.0, 0.5], [1.0, 0.75], 1, 2)):
        question = ask(subject_of(network), asked, 0)
        kinds = {node.op.kind for node in (*question.network.nodes, *question.proved.nodes)}
        assert kinds <= {"affine", "max-pool2d", "reshape", "concat"}
        assert proves(question.network, question.region.enclosure(), question.batch.classes).all()
    # The user's floats tie at (1, .75), where real numbers do not.
    assert asked.compares_outputs and isinstance(question.confirm(torch.tensor([1.0, 0.75])), str)
    kept = Property(values(0, 0), values(1, 1), (Halfspaces(values(1, 0)[None], values(0.5)),))
    assert not kept.compares_outputs and end.kind in {
        node.op.kind for node in ask(subject_of(network), kept, 0).network.nodes
    }


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_boxes_of_any_size_are_regions(scale: float) -> None:
    network = chain((2,), Affine(torch.eye(2, dtype=torch.float64)), dtype=torch.float64)
    asked = Property(values(-1, 0) * scale, values(1, 1) * scale, (Halfspaces(values(1, 0)[None], values(0)),))
    enclosure = ask(subject_of(network), asked, 0).region.enclosure()
    assert torch.equal(enclosure.lower[0], asked.lower) and torch.equal(enclosure.upper[0], asked.upper)
