"""How many threads torch uses for a piece of work."""

import contextlib
from collections.abc import Iterator

import torch

# Below this many multiply-adds a pass, a second thread costs more than it brings; on a machine that is busy with
# other work it costs a hundred times more, as idle threads spin (180 s against 5 s on 360 digits).
SMALL_WORK = 1 << 24


@contextlib.contextmanager
def threads_for(multiply_adds: int) -> Iterator[None]:
    """Use one thread inside for small work, and as many as before otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if multiply_adds < SMALL_WORK else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
