"""What every test meets: one thread, which cases are slow, and where the optional data lie."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from tests.pretended_device import pretended
from tests.shares import runs, stride, turn_of_today, window

# Two threads on small tensors wait for each other, most of all beside another busy process, such as another worker of
# `pytest -n`. So one thread: of torch, of the BLAS that is loaded, and of what tests load or start later.
torch.set_num_threads(1)
threadpool_limits(1, user_api="blas")
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but the turn's share of the cases of large matrices, and of seeds, slow (`tests/shares.py`)."""
    turn = items[0].config.getoption("--turn") if items else 0
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not all(window(*mark.args, turn=turn) for mark in item.iter_markers("seed")):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") is None:
            families.setdefault(item.nodeid.split("[")[0], []).append(item)
    for place, cases in families.items():
        every = stride(place.rsplit("::", 1)[-1], len(cases))
        for number, item in enumerate(cases):
            if not runs(number, every, turn):
                item.add_marker(pytest.mark.slow)


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of optional data sets, or skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the optional data sets are not here")
    return SHARED_DATA


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the device of the tests in `tests/test_devices.py`, and the turn of the cases that run by default."""
    parser.addoption("--turn", type=int, metavar="N", help="which share of large matrices runs (default: the day's)")
    parser.addoption("--device", default="pretended", choices=("pretended", "cuda"), help="of tests/test_devices.py")


def pytest_configure(config: pytest.Config) -> None:
    """Take the day's turn unless one is given; workers of `pytest -n` are given that of the first process."""
    # A shell starts what it puts into the background deaf to Ctrl-C, and children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.turn is None:
        config.option.turn = turn_of_today()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which cases ran."""
    turn = terminalreporter.config.option.turn
    terminalreporter.write_line(f"of large matrices the cases of turn {turn} ran; the same again: --turn {turn}")


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Yield the device that is asked for: a pretended one, or a real one where it is there."""
    if request.config.getoption("--device") == "pretended":
        monkeypatch.setenv("ENCODERS_MWD_KERNELS", "reference")
        with pretended() as there:
            yield there
    elif not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    else:
        yield torch.device("cuda", torch.cuda.current_device())
