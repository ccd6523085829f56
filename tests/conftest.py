"""What every test meets: one thread, which cases are slow, and where the optional data lie."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from tests.pretended_device import pretended
from tests.shares import EVERY

# Two threads on small tensors wait for each other, most of all beside another busy process, such as another worker of
# `pytest -n`. So one thread: of torch, of the BLAS that is loaded, and of what tests load or start later.
torch.set_num_threads(1)
threadpool_limits(1, user_api="blas")
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but a share of the cases of large matrices slow (`tests/shares.py`)."""
    numbers: dict[str, int] = {}
    for item in items:
        name = getattr(item, "originalname", item.name)
        if name not in EVERY:
            continue
        place = item.nodeid.split("[")[0]
        numbers[place] = numbers.get(place, -1) + 1
        if numbers[place] % EVERY[name]:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of optional data sets, or skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the optional data sets are not here")
    return SHARED_DATA


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the device of the tests in `tests/test_devices.py`."""
    parser.addoption("--device", default="pretended", choices=("pretended", "cuda"), help="of tests/test_devices.py")


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
