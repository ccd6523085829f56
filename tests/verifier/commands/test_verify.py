"""The verb `verify`: verdicts by hand, what makes a witness, and how results are written."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from encoders import BallRegion, Box, Network, write_network
from encoders.formats.native import open_runtime
from encoders.ops import Affine, Relu, Sigmoid
from encoders.property import Halfspaces, Property
from encoders.questions import always_largest
from tests.networks.chains import chain
from verifier import check, verify
from verifier.cli import main
from verifier.subject import Subject

# y = (x_0 + x_1, x_0 - x_1).
WEIGHT = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
DECLARED = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
UNIT_BOX = "(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))\n"


def written(network: Network, folder: Path) -> Path:
    path = folder / "model.safetensors"
    write_network(network, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(chain((2,), Affine(WEIGHT), Relu(), Affine(torch.eye(2))), tmp_path)


def text(folder: Path, formula: str, name: str = "prop.vnnlib") -> Path:
    path = folder / name
    path.write_text(DECLARED + formula)
    return path


def box(lower: list[float], upper: list[float], *rows: tuple[list[float], float], **more) -> Property:
    """Return the property of one polyhedron of the given rows."""
    coefficients = torch.tensor([row for row, _ in rows], dtype=torch.float64)
    offsets = torch.tensor([offset for _, offset in rows], dtype=torch.float64)
    ends = (torch.tensor(end, dtype=torch.float64) for end in (lower, upper))
    return Property(*ends, (Halfspaces(coefficients, offsets, **more),))


def test_a_file_is_proved_or_broken(model: Path, tmp_path: Path) -> None:
    beyond = text(tmp_path, UNIT_BOX + "(assert (>= Y_0 2.5))", "beyond.vnnlib")
    within = text(tmp_path, UNIT_BOX + "(assert (>= Y_0 1.5))", "within.vnnlib")
    result = verify(model, [beyond, within])
    assert [verified.verdict for verified in result.properties] == ["unsat", "sat"]
    assert [verified.property for verified in result.properties] == [str(beyond), str(within)]
    proved, broken = result.properties
    assert proved.strength == "checked" and proved.witness is None and proved.method == "interval"
    assert broken.witness is not None and broken.witness.outputs[0] >= 1.5


def test_a_conjunction_that_no_single_row_refutes_is_proved(model: Path) -> None:
    # y_0 + y_1 = 2 max(x_0, x_1, ...) here; y_0 <= 1 and y_0 >= 1 + y_1 and y_1 >= .75 contradict each other together.
    rows = (([1.0, 0.0], 1.0), ([-1.0, 1.0], -0.5), ([0.0, -1.0], -0.75))
    (verified,) = verify(model, box([0.0, 0.0], [1.0, 1.0], *rows)).properties
    assert verified.verdict == "unsat"
    for row in rows:
        assert verify(model, box([0.0, 0.0], [1.0, 1.0], row)).properties[0].verdict == "sat"


def test_a_file_of_several_boxes_has_one_verdict(model: Path, tmp_path: Path) -> None:
    boxes = "(assert (or (and (>= X_0 {}) (<= X_0 1) (>= X_1 0) (<= X_1 .1)) (and (>= X_0 0) (<= X_0 .2) (>= X_1 0)"
    boxes += " (<= X_1 .1))))(assert (>= Y_0 1.5))"
    (proved,) = verify(model, text(tmp_path, boxes.format(0.5))).properties
    assert proved.verdict == "unsat" and proved.boxes == 2
    open_boxes = boxes.format(0.5).replace("(<= X_1 .1))))", "(<= X_1 1.5))))")
    (broken,) = verify(model, text(tmp_path, open_boxes)).properties
    assert broken.verdict == "sat" and broken.boxes == 2
    assert broken.witness is not None and float(broken.witness.point[0]) <= 0.2


def test_nothing_unsafe_is_vacuously_true(model: Path, tmp_path: Path) -> None:
    empty = Property(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64), ())
    contradiction = text(tmp_path, UNIT_BOX + "(assert (and (>= X_0 .5) (<= X_0 .4) (>= Y_0 0)))")
    for asked in (empty, contradiction):
        (verified,) = verify(model, asked).properties
        assert verified.verdict == "unsat" and verified.reason is not None
        assert verified.reason.startswith("vacuously true")


def test_a_tie_is_a_counterexample_unless_it_is_written_strictly(model: Path) -> None:
    edge = [0.25, 0.5], [0.25, 0.5], ([1.0, 0.0], 0.75)
    assert verify(model, box(*edge)).properties[0].verdict == "sat"
    strict = verify(model, box(*edge, strict=(True,))).properties[0]
    assert strict.verdict == "unknown" and strict.reason is not None


def test_an_offset_between_two_numbers_of_float32_is_kept(tmp_path: Path) -> None:
    model = written(chain((1,), Affine(torch.tensor([[1.0], [0.0]]))), tmp_path)
    tenth = float(torch.tensor(0.1))
    assert tenth > 0.1
    # The float32 next to .1 lies above it, so y <= .1 is not reached at that point, in float64.
    assert verify(model, box([tenth], [tenth], ([1.0, 0.0], 0.1))).properties[0].verdict == "unsat"
    assert verify(model, box([tenth], [tenth], ([1.0, 0.0], tenth))).properties[0].verdict == "sat"


def test_a_box_that_holds_no_number_of_the_model_has_witnesses_in_float64(model: Path, tmp_path: Path) -> None:
    asked = [box([0.1, 0.5], [0.1, 0.5], ([1.0, 0.0], 5.0)), box([0.25, 0.5], [0.5, 0.5], ([1.0, 0.0], 5.0))]
    broken, usual = verify(model, asked, out=tmp_path / "run").properties
    assert broken.verdict == usual.verdict == "sat" and broken.witness is not None and usual.witness is not None
    assert broken.witness.point.tolist() == [0.1, 0.5] and broken.witness.point.dtype == torch.float64
    assert usual.witness.point.dtype == torch.float32
    # Replayed as the model rounds it, and kept beside points of its own dtype.
    rounded = open_runtime(model)(np.array([[0.1, 0.5]], dtype=np.float32))[0]
    assert np.array_equal(broken.witness.outputs, rounded)
    assert not check(tmp_path / "run").refused
    (proved,) = verify(model, box([0.1, 0.5], [0.1, 0.5], ([1.0, 0.0], 0.5))).properties
    assert proved.verdict == "unsat"


def test_a_box_that_holds_no_float64_has_no_witness(model: Path, tmp_path: Path) -> None:
    asked = text(tmp_path, "(assert (and (> X_0 .1) (< X_0 .100000000000000005) (= X_1 .5) (<= Y_0 5)))")
    (broken,) = verify(model, asked).properties
    assert broken.verdict == "unknown" and "no float64 lies between" in str(broken.reason)


def test_a_witness_lies_in_the_box_as_it_was_written(tmp_path: Path) -> None:
    model = written(chain((2,), Affine(WEIGHT.double()), dtype=torch.float64), tmp_path)
    # Everything is unsafe, so corners of the stored box would be witnesses; .1 and .3 are no float64.
    path = text(tmp_path, "(assert (and (>= X_0 .1) (<= X_0 .3) (>= X_1 .1) (<= X_1 .3) (<= Y_0 5)))")
    (verified,) = verify(model, path).properties
    assert verified.witness is not None
    for value in verified.witness.point.tolist():
        assert math.nextafter(0.1, 0) < value < math.nextafter(0.3, 1)


def test_what_only_a_solver_vouches_for_is_unknown(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    layers = [Affine(torch.randn(6, 2, generator=generator)), Relu(), Affine(torch.randn(2, 6, generator=generator))]
    network = chain((2,), *layers)
    outputs = network.evaluate(torch.rand(20000, 2, generator=generator))
    asked = box([0.0, 0.0], [1.0, 1.0], ([1.0, 0.0], float(outputs[:, 0].min()) - 0.02))
    path = written(network, tmp_path)
    (verified,) = verify(path, asked, method="milp").properties
    assert verified.method == "", "nothing is proved before the solver is asked"
    assert verified.verdict == "unknown" and "word of a solver" in str(verified.reason)
    assert verify(path, asked, method="exact").properties[0].verdict == "unsat"


def test_one_output_and_modules_are_taken() -> None:
    module = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        module[0].bias.fill_(-1.0)
    lower, upper = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    asked = [Property(lower, upper, (Halfspaces(-one, -limit * one[0]),)) for limit in (0.9, 0.7)]
    assert [verified.verdict for verified in verify(module, asked).properties] == ["unsat", "sat"]


def test_class_robustness_is_asked_about_the_model_itself(tmp_path: Path) -> None:
    network = chain((2,), Affine(WEIGHT), Sigmoid())
    asked = always_largest([0.5, 0.1], [1.0, 0.2], 0, 2)
    assert verify(written(network, tmp_path), asked).properties[0].verdict == "unsat"


@pytest.mark.parametrize(
    ("asked", "options", "message"),
    [
        (box([0.0], [1.0], ([1.0, 0.0], 0.0)), {}, "is about 1 inputs"),
        (box([0.0, 0.0], [1.0, 1.0], ([1.0], 0.0)), {}, "1 outputs, the network has 2"),
        (box([0.0, 0.0], [1.0, 1.0], ([1.0, 0.0], 0.0)), {"method": "lipschitz"}, "Methods for this network"),
        (box([0.0, 0.0], [1.0, 1.0], ([1.0, 0.0], 0.0)), {"method": "nonsense"}, "unknown method"),
        (box([0.0, 0.0], [1.0, 1.0], ([1.0, 0.0], 0.0)), {"time_limit": -1.0}, "time limit"),
        (box([0.0, 0.0], [1e300, 1.0], ([1.0, 0.0], 0.0)), {}, "does not hold the bounds"),
        ([], {}, "name a property"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, options, message: str, model: Path) -> None:
    with pytest.raises(ValueError, match=message):
        verify(model, asked, **options)


@pytest.mark.parametrize("method", ["restriction", "exact", "crown"])
def test_a_box_whose_middle_is_unsafe_is_broken_there(method: str, model: Path) -> None:
    (verified,) = verify(model, box([0.0, 0.0], [1.0, 1.0], ([1.0, 0.0], 5.0)), method=method).properties
    assert verified.verdict == "sat"


def test_no_time_is_a_timeout(model: Path) -> None:
    asked = box([0.0, 0.0], [1.0, 1.0], ([1.0, 0.0], 0.5))
    assert verify(model, asked, time_limit=0.0).properties[0].verdict == "timeout"


def test_a_wrong_graph_is_noticed_at_a_point_that_is_tried(model: Path, monkeypatch) -> None:
    execute = Subject._run

    def wrong(self: Subject, points) -> object:
        outputs = execute(self, points)
        return outputs + 1.0 if len(points) == 1 and self.agreement is not None else outputs

    monkeypatch.setattr(Subject, "_run", wrong)
    with pytest.raises(ValueError, match="graph"):
        verify(model, box([0.0, 0.0], [1.0, 1.0], ([1.0, 0.0], 0.5)))


def test_the_command_line_prints_one_object_and_writes_results(model: Path, tmp_path: Path, capsys) -> None:
    within = text(tmp_path, UNIT_BOX + "(assert (>= Y_0 1.5))")
    results = tmp_path / "results.txt"
    arguments = ["verify", str(model), str(within), "--json", "--results", str(results), "--time-limit", "60"]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["command"] == "verify" and printed["model"] == str(model)
    (entry,) = printed["properties"]
    assert {"property", "verdict", "seconds", "certificate", "witness"} <= entry.keys()
    assert entry["verdict"] == "sat" and entry["certificate"] is None
    lines = results.read_text().splitlines()
    assert lines[0] == "sat" and lines[1].startswith("((X_0 ") and lines[-1].endswith("))")
    values = [float(line.strip("()").split()[1]) for line in lines[1:]]
    assert values == [*entry["witness"]["input"], *entry["witness"]["output"]]
    region = BallRegion.of_box(Box(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)))
    assert bool(region.contains(torch.tensor([values[:2]])))
    assert main(["verify", str(model), str(within)]) == 0
    assert "sat" in capsys.readouterr().out


def test_a_results_file_is_about_one_property(model: Path, tmp_path: Path, capsys) -> None:
    path = str(text(tmp_path, UNIT_BOX + "(assert (>= Y_0 2.5))"))
    assert main(["verify", str(model), path, path, "--results", str(tmp_path / "r.txt")]) == 2
    assert "one property" in capsys.readouterr().err
    for place in (tmp_path, tmp_path / "nothing" / "r.txt"):
        with pytest.raises(ValueError, match="no file in a folder"):  # before any work
            verify(tmp_path / "no.onnx", path, results=place)
    assert main(["verify", str(model), path, "--results", str(tmp_path / "r.txt")]) == 0
    assert (tmp_path / "r.txt").read_text() == "unsat\n"
    with pytest.raises(SystemExit):
        main(["verify", str(model), path, "--allow", "nonsense"])
