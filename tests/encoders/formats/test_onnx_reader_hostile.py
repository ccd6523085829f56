"""Small ONNX files that do harm are refused by name, without the minutes and gibibytes that they ask for."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.networks.hostile_onnx import FILES, write_all
from tests.programs import preloaded

CASES = REPOSITORY / "tests" / "cases" / "hostile"
# What does harm takes minutes, a refusal a second or less: a machine that is busy does not count as harm.
SECONDS, MEBIBYTES = 30.0, 1024

# Read one file after another in a process of its own, whose peak of memory is that of the worst file so far.
PROGRAM = """
import json, re, sys, time
import onnxruntime
from encoders.formats import ModelFileError, onnx_reader, open_runtime, read_network
for path in sys.argv[1:]:
    for open_file in (read_network, open_runtime):
        start, message = time.process_time(), ""
        try:
            open_file(path)
        except ModelFileError as error:
            message = str(error)
        seconds = time.process_time() - start
        # Unlike getrusage this does not count the process that started this one.
        peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) >> 10
        print(json.dumps([path, open_file.__name__, message, seconds, peak]), flush=True)
"""

WORDS = {"double28": "node values", "hugeinput": "input values", "maxpoolloop": "input values", "redos": "STRING"}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    """Return by file name what came of reading and of running it: (path, function, message, seconds, MiB)."""
    folder = tmp_path_factory.mktemp("hostile")
    write_all(folder)
    paths = [str(path) for path in sorted([*folder.iterdir(), *CASES.glob("*.onnx")])]
    done = preloaded.run(PROGRAM, paths)
    assert done.returncode == 0, done.stderr[-2000:]
    results: dict[str, list[tuple[Any, ...]]] = {}
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        results.setdefault(Path(entry[0]).name, []).append(tuple(entry))
    return results


def assert_refused(results: list[tuple[Any, ...]], word: str) -> None:
    assert [entry[1] for entry in results] == ["read_network", "open_runtime"]
    for path, _, message, seconds, peak in results:
        assert message.startswith(path), message[:500]
        assert word in message
        assert len(message) < 50_000
        assert seconds < SECONDS
        assert peak < MEBIBYTES


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_asks_for_too_much_is_refused_by_what_it_asks_for(name: str, refusals: dict) -> None:
    assert_refused(refusals[f"{name}.onnx"], FILES[name][1])


@pytest.mark.parametrize("name", WORDS)
def test_a_file_that_did_harm_is_refused(name: str, refusals: dict) -> None:
    assert_refused(refusals[f"{name}.onnx"], WORDS[name])


@pytest.mark.parametrize("name", ["bomb", "zeros"])
def test_a_compressed_file_that_unpacks_to_no_weights_is_refused(name: str, refusals: dict) -> None:
    assert_refused(refusals[f"{name}.onnx.gz"], "expanded bytes")
