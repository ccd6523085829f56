"""Cost of linear bounds: CPU seconds, peak memory, and what rigour adds to both time and width.

    python benchmarks/linear_bounds.py MODEL [MODEL ...] --data mnist --data-dir MNIST --inputs 100 --epsilon 0.03

For each model: CROWN on the batch, rigorous and with plain float64 arithmetic in turn (the same passes without any
error term), the ratio of their times pair by pair, the greatest difference of their bounds, and the optimised slopes on
the first `--slope-inputs` inputs with 20 steps. One thread.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from encoders import BallRegion
from encoders.views.coefficients import BoxMinimum, Coefficients
from encoders.views.envelope import Below, ElementwiseEnvelope, LinearEnvelope
from verifier.bounds.linear.margins import Margins, in_pieces, linear_margins
from verifier.bounds.linear.slopes import SlopeSearch
from verifier.data import load_data
from verifier.subject import open_model

PAIRS = 5


def plain_linear(self: LinearEnvelope, coefficients: Coefficients) -> Below:
    batch, rows = coefficients.rows
    constant = torch.zeros(batch, rows, dtype=coefficients.values.dtype)
    return self.adjoint(coefficients), constant if self.bias is None else coefficients.dot(self.bias)


def plain_elementwise(self: ElementwiseEnvelope, coefficients: Coefficients) -> Below:
    if self._support is not None:
        coefficients = coefficients.only(self._support)
    middle, half = self._slopes
    size = abs(coefficients)
    values = coefficients.values * coefficients.crop(middle) + size.values * coefficients.crop(half)
    half_offset = (self.lower_offset - self.upper_offset) * 0.5
    middle_offset = (self.lower_offset + self.upper_offset) * 0.5
    return (coefficients.with_values(values),), coefficients.dot(middle_offset) + size.dot(half_offset)


def plain_box(self: BoxMinimum, coefficients: Coefficients) -> Tensor:
    centre, radius = (self.box.lower + self.box.upper) * 0.5, (self.box.upper - self.box.lower) * 0.5
    return coefficients.dot(centre) - abs(coefficients).dot(radius)


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Replace the rigorous steps by the same ones without error terms."""
    places = ((LinearEnvelope, "below"), (ElementwiseEnvelope, "below"), (BoxMinimum, "__call__"))
    kept = [getattr(owner, name) for owner, name in places]
    for (owner, name), plain in zip(places, (plain_linear, plain_elementwise, plain_box), strict=True):
        setattr(owner, name, plain)
    try:
        yield
    finally:
        for (owner, name), method in zip(places, kept, strict=True):
            setattr(owner, name, method)


def timed(work: Callable[[], Margins]) -> tuple[float, Margins]:
    started = time.process_time()
    margins = work()
    return time.process_time() - started, margins


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(model: str, options: argparse.Namespace) -> None:
    network, _ = open_model(model)
    data = load_data(options.data, data_dir=options.data_dir).fit_to(network.input_shape)
    x = torch.tensor(data.inputs[: options.inputs]).double()
    classes = network.scores(x.to(network.dtype)).argmax(dim=1)
    region = BallRegion(x, torch.full((len(x),), options.epsilon, dtype=torch.float64), (0.0, 1.0))
    before = peak_mebibytes()
    work = partial(in_pieces, linear_margins, network, region, classes)
    work()
    rigorous, plain, widths = [], [], []
    for _ in range(PAIRS):
        seconds, exact = timed(work)
        rigorous.append(seconds)
        with plain_arithmetic():
            seconds, bare = timed(work)
        plain.append(seconds)
        finite = exact.lower.isfinite() & bare.lower.isfinite()
        widths.append(float((bare.lower - exact.lower)[finite].abs().max()) if bool(finite.any()) else 0.0)
    ratios = [a / b for a, b in zip(rigorous, plain, strict=True)]
    proved = int(exact.proved.sum())
    print(f"{Path(model).name}: {len(x)} inputs, epsilon {options.epsilon:g}: {proved} proved", flush=True)
    print(f"  CROWN {statistics.median(rigorous):.2f} CPU s ({min(rigorous):.2f} to {max(rigorous):.2f}), "
          f"{peak_mebibytes() - before:.0f} MiB above the {before:.0f} MiB before")  # fmt: skip
    print(f"  rigorous / plain {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
          f"bounds at most {max(widths):.1e} lower")  # fmt: skip
    few = slice(0, options.slope_inputs)
    search = partial(linear_margins, search=SlopeSearch(20))
    seconds, better = timed(partial(in_pieces, search, network, region[few], classes[few]))
    print(f"  20 steps on slopes, {len(classes[few])} inputs: {seconds:.2f} CPU s, "
          f"{int(better.proved.sum())} proved ({int(exact.proved[few].sum())} before)", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--slope-inputs", type=int, default=10)
    parser.add_argument("--epsilon", type=float, default=0.03)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for model in options.models:
        measure(model, options)


if __name__ == "__main__":
    main()
