"""Questions about two networks or two inputs, asked through `verify`, against breakpoints in rational numbers."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from encoders import Network, write_network
from encoders.ops import Affine
from encoders.property import Property
from encoders.questions import equal_within, monotone_in, output_changes_less_than
from tests.networks.chains import chain
from tests.oracles.one_input import bends, bumpy, greatest_change, greatest_distance, greatest_fall, value
from verifier import check, verify
from verifier.cli import main

LOWER, UPPER, CENTRE = Fraction(-1), Fraction(1), Fraction(1, 4)
NEAR = Fraction(1, 1000)


def written(network: Network, folder: Path, name: str) -> Path:
    path = folder / f"{name}.safetensors"
    write_network(network, path)
    return path


def around(number: Fraction) -> tuple[float, float]:
    """Return a number a little below and one a little above."""
    return float(number * (1 - NEAR)), float(number * (1 + NEAR))


@pytest.mark.parametrize("seed", range(3))
def test_verdicts_are_those_of_the_breakpoints(seed: int, tmp_path: Path) -> None:
    f, g = bumpy(seed), bumpy(seed + 100)
    places = {"f": written(f, tmp_path, "f"), "g": written(g, tmp_path, "g")}
    change = greatest_change(f, CENTRE, CENTRE - Fraction(1, 2), CENTRE + Fraction(1, 2))
    fall, distance = greatest_fall(f, LOWER, UPPER), greatest_distance(f, g, LOWER, UPPER)
    asked: list[tuple[Property, str, bool]] = []
    for number, verdict in zip(around(change), ("sat", "unsat"), strict=True):
        asked.append((output_changes_less_than([float(CENTRE)], 0.5, number, 1), verdict, False))
    for number, verdict in zip(around(distance), ("sat", "unsat"), strict=True):
        asked.append((equal_within([-1.0], [1.0], number, 1, second="g"), verdict, True))
    for number, verdict in zip(around(fall or Fraction(1)), ("sat" if fall else "unsat", "unsat"), strict=True):
        asked.append((monotone_in([-1.0], [1.0], 0, 0, 1, slack=number), verdict, False))
    for question, verdict, two in asked:
        networks = {"g": places["g"]} if two else None
        (found,) = verify(places["f"], question, networks=networks, time_limit=60).properties
        assert found.verdict == verdict, (question.unsafe, found.reason)
        if found.witness is not None:
            for copy in found.to_json()["witness"]["copies"]:
                network = f if copy["network"] == "f" else g
                assert float(value(network, Fraction(copy["input"][0]))) == pytest.approx(copy["output"][0], abs=1e-5)


def test_a_run_about_two_models_is_checked_against_both(tmp_path: Path) -> None:
    f, g = written(bumpy(1), tmp_path, "f"), written(bumpy(101), tmp_path, "g")
    questions = [equal_within([-1.0], [1.0], delta, 1, second="g") for delta in (0.01, 50.0)]
    result = verify(f, questions, networks={"g": g}, method="exact", out=tmp_path / "run")
    assert [found.verdict for found in result.properties] == ["sat", "unsat"]
    checked = check(tmp_path / "run")
    assert not checked.refused and (checked.checked, checked.witnesses) == (1, 1)
    moved = written(bumpy(101), tmp_path, "moved")
    g.unlink()
    assert not check(tmp_path / "run", networks={"g": moved}).refused
    with pytest.raises(ValueError, match="is not the model of the run"):
        check(tmp_path / "run", networks={"g": written(bumpy(102), tmp_path, "other")})


PAIR = """(vnnlib-version <2.0>)
(declare-network f (declare-input x float32 [1]) (declare-output y float32 [1]))
(declare-network g (isomorphic-to f) (declare-input u float32 [1]) (declare-output v float32 [1]))
(assert (= x[0] u[0])) (assert (<= -1.0 x[0] 1.0)) (assert (>= (- v[0] y[0]) {}))
"""


def test_a_file_about_two_networks_is_decided_on_the_command_line(tmp_path: Path, capsys) -> None:
    f, g = bumpy(4), bumpy(104)
    places = written(f, tmp_path, "f"), written(g, tmp_path, "g")
    greatest = max(value(g, x) - value(f, x) for x in {*bends(f, LOWER, UPPER), *bends(g, LOWER, UPPER)})
    for number, verdict in zip(around(greatest), ("sat", "unsat"), strict=True):
        asked = tmp_path / "pair.vnnlib"
        asked.write_text(PAIR.format(repr(number)))
        out = str(tmp_path / verdict)
        assert main(["verify", str(places[0]), str(asked), "--network", f"g={places[1]}", "--json", "--out", out]) == 0
        (found,) = json.loads(capsys.readouterr().out)["properties"]
        assert found["verdict"] == verdict
        if verdict == "sat":
            first, second = found["witness"]["copies"]
            assert first["input"] == second["input"] and second["output"][0] - first["output"][0] >= number
        assert main(["check", out, "--allow-uncertified"]) == 0
        capsys.readouterr()


def test_models_that_are_missing_or_not_asked_about_are_refused_by_name(tmp_path: Path) -> None:
    f = written(bumpy(1), tmp_path, "f")
    with pytest.raises(ValueError, match="about 2 networks; name the model of g by --network g=FILE"):
        verify(f, equal_within([-1.0], [1.0], 1.0, 1, second="g"))
    with pytest.raises(ValueError, match="asks nothing of a network 'h': it is about one model alone"):
        verify(f, monotone_in([-1.0], [1.0], 0, 0, 1, slack=1.0), networks={"h": f})
    with pytest.raises(ValueError, match="different networks, or inputs of them"):
        verify(f, [monotone_in([-1.0], [1.0], 0, 0, 1, slack=1.0), output_changes_less_than([0.0], 1.0, 1.0, 1)])
    with pytest.raises(ValueError, match=r"'g' of 1 inputs and 1 outputs, .* has 2 and 1"):
        wide = written(chain((2,), Affine(torch.ones(1, 2))), tmp_path, "wide")
        verify(f, equal_within([-1.0], [1.0], 1.0, 1, second="g"), networks={"g": wide})
