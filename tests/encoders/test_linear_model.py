import math

import highspy
import numpy as np
import pytest
from scipy.sparse import csr_array

from encoders.formats.linear_program import write_linear_program
from encoders.linear_model import Direction, LinearModel, RowBuilder
from tests.programs.awkward_model import awkward_model


def test_directions_say_what_may_be_concluded():
    assert {direction: direction.may_prove for direction in Direction} == {"outer": True, "inner": False, "exact": True}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cost", np.array([1.0, np.nan]), "coefficient"),
        ("col_upper", np.array([1.0, np.inf]), "column 1 is not bounded"),
        ("col_lower", np.array([2.0, 0.0]), "column 0 has lower end"),
        ("row_lower", np.array([np.nan]), "row 0 has lower end"),
        ("row_lower", np.array([0.0, 0.0]), "shape"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(field, value, message):
    fields = {
        "cost": np.ones(2), "A": csr_array(np.ones((1, 2))), "row_lower": np.zeros(1), "row_upper": np.ones(1),
        "col_lower": np.zeros(2), "col_upper": np.ones(2), "direction": Direction.INNER,
    }  # fmt: skip
    LinearModel(**fields)
    with pytest.raises(ValueError, match=message):
        LinearModel(**fields | {field: value})


def test_a_dual_bound_is_below_every_feasible_value_for_any_multipliers():
    random = np.random.default_rng(3)
    for _ in range(200):
        matrix = random.normal(size=(3, 4))
        lower, upper = -random.random(3) * 3, random.random(3) * 3
        lower[0], upper[1] = -math.inf, math.inf
        some = LinearModel(
            random.normal(size=4), csr_array(matrix), lower, upper, -np.ones(4), np.ones(4), Direction.OUTER
        )
        points = random.uniform(-1, 1, size=(500, 4))
        feasible = [some.cost @ x for x in points if some.violation(x) == 0]
        bound = some.dual_bound(random.normal(size=3) * 2)
        assert not feasible or bound <= min(feasible) + 1e-12


def test_a_row_builder_stacks_blocks():
    builder = RowBuilder(3)
    assert builder.stack()[0].shape == (0, 3)
    builder.add(csr_array(np.eye(3)[:2]), 0.0, np.array([1.0, 2.0]))
    builder.add(csr_array(np.ones((1, 3))), -1.0, 5.0)
    matrix, lower, upper = builder.stack()
    assert matrix.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 1]]
    assert lower.tolist() == [0, 0, -1] and upper.tolist() == [1, 2, 5]
    with pytest.raises(ValueError, match="2 columns"):
        builder.add(csr_array(np.ones((1, 2))), 0.0, 1.0)


@pytest.mark.parametrize("suffix", [".mps", ".lp"])
@pytest.mark.parametrize("integer", [False, True])
def test_a_written_model_reads_back_to_the_same_floats(tmp_path, suffix, integer):
    """HiGHS reads what we wrote; its own writer would have kept 15 digits."""
    path = tmp_path / f"model{suffix}"
    for seed in range(5):
        some = awkward_model(seed, integer)
        write_linear_program(some, path)
        reader = highspy.Highs()
        reader.setOptionValue("output_flag", False)
        # HiGHS drops coefficients below this: 1e-9 unless told otherwise.
        reader.setOptionValue("small_matrix_value", 0.0 if False else 1e-12)
        assert reader.readModel(str(path)).name != "kError"
        lp = reader.getLp()
        assert list(lp.col_cost_) == some.cost.tolist()
        assert list(lp.col_lower_) == some.col_lower.tolist() and list(lp.col_upper_) == some.col_upper.tolist()
        assert [kind.name == "kInteger" for kind in lp.integrality_] == (some.integer.tolist() if integer else [])
        found = csr_array((lp.a_matrix_.value_, lp.a_matrix_.index_, lp.a_matrix_.start_), shape=(4, lp.num_row_)).T
        finite = np.isfinite(some.row_lower) | np.isfinite(some.row_upper)
        wanted = some.A.toarray()[finite]
        wanted[abs(wanted) <= 1e-12] = 0.0
        if suffix == ".mps":
            assert (found.toarray() == wanted).all()
        else:
            rows = found.toarray().tolist()
            assert all(row in rows for row in wanted.tolist())


def test_an_unknown_suffix_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"\.mps or \.lp"):
        write_linear_program(awkward_model(), tmp_path / "model.txt")
