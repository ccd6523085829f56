"""Commands of Agrawal et al.: what one run of them has measured is not measured again."""

from pathlib import Path
from types import SimpleNamespace

from benchmarks.mwd_paper import Experiment


def test_what_was_measured_is_kept_until_an_option_differs(tmp_path: Path):
    asked = list[int]()

    def measure(run: int) -> dict[str, list[float]]:
        asked.append(run)
        return {"curve": [0.1 * run, 1 / 3]}

    def command(inputs: int, runs: int) -> list[dict[str, list[float]]]:
        experiment = SimpleNamespace(options=SimpleNamespace(inputs=inputs, runs=runs, cache=tmp_path, out=tmp_path))
        return [Experiment.kept(experiment, f"figure-run{run}", measure, run) for run in range(runs)]

    first = command(10, 1)
    assert command(10, 2)[:1] == first == [{"curve": [0.0, 1 / 3]}]
    assert asked == [0, 1], "more runs go on from those that are there"
    command(20, 1)
    assert asked == [0, 1, 0]
