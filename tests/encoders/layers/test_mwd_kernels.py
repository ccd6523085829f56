"""Kernels of MWD units: each kind against the reference, and the place that chooses among them."""

import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders.box import Box
from encoders.layers import mwd_kernels, mwd_reference
from encoders.layers.mwd_unit import max_square, mwd
from encoders.ops import Mwd
from tests.conftest import REPOSITORY

F32, F64 = torch.float32, torch.float64
DTYPES = [F32, F64]
# Stated by the kernels: the exp of the pseudogradient is approximate.
PSEUDO = 1e-3
# True gradients differ by the order of sums over the batch.
SUMS = {F32: 1e-6, F64: 1e-14}
# (batch, units, inputs): single, odd, more than one block of lanes, exact multiples, wide and flat.
SHAPES = [(1, 1, 1), (1, 9, 7), (33, 1, 5), (7, 5, 1), (17, 6, 33)]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED:  # which is slow
    SHAPES += [(129, 3, 10), (32, 4, 16), (3, 65, 8)]


@pytest.fixture(params=["triton" if INTERPRETED else "numba"])
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    """Return the kernels that run here on CPU tensors: numba's, and in the inner run Triton's."""
    pytest.importorskip(request.param)
    return mwd_kernels._kernels(request.param)


def operands(shape: tuple[int, int, int], dtype: torch.dtype, seed: int = 0, scale: float = 3.0) -> tuple[Tensor, ...]:
    """Return (x, u, w, grad); a third of the weights are zero."""
    batch, units, inputs = shape
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, inputs, generator=g, dtype=dtype)
    u = scale * torch.rand(units, inputs, generator=g, dtype=dtype)
    u[torch.rand(units, inputs, generator=g) < 1 / 3] = 0.0
    w = torch.rand(units, inputs, generator=g, dtype=dtype)
    return x, u, w, torch.randn(batch, units, generator=g, dtype=dtype)


def assert_same(a: Tensor, b: Tensor) -> None:
    """Assert that two tensors are equal bit for bit, up to the sign of zero and the kind of NaN."""
    assert a.dtype == b.dtype and a.shape == b.shape
    assert bool(((a == b) | (a.isnan() & b.isnan())).all())


def scattered(t: Tensor) -> Tensor:
    """Return the same matrix with gaps in memory and transposed strides."""
    spread = t.new_full((2 * t.shape[1], 3 * t.shape[0]), torch.nan)[::2, ::3].t()
    return spread.copy_(t)


# ------------------------------------------------------------------------------------------ values and ranges


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_ranges_equal_the_reference_bit_for_bit(
    kernels: ModuleType, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, u, w, _ = operands(shape, dtype)
    upper = x + 0.3 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    assert_same(kernels.weighted_distance(x, u, w), mwd_reference.weighted_distance(x, u, w))
    for box in ((x, upper), (x, x), (x - 3.0, upper)):
        for ours, reference in zip(
            kernels.distance_range(*box, u, w), mwd_reference.distance_range(*box, u, w), strict=True
        ):
            assert_same(ours, reference)


def test_a_term_is_rounded_after_the_difference_and_after_the_product(kernels: ModuleType) -> None:
    # fl(1 - 2^-25) = 1 in float32, so t = 3 exactly; one rounding at the end would give 3 - 2^-23 < 3.
    x, u, w = torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([[2.0**-25]])
    assert float(3.0 * (x.double() - w.double())) < 3.0 - 2.0**-24
    assert kernels.weighted_distance(x, u, w).tolist() == [[3.0]]
    assert [end.tolist() for end in kernels.distance_range(x, x, u, w)] == [[[3.0]], [[3.0]]]


def test_ranges_by_hand(kernels: ModuleType) -> None:
    # Attractor 0.5 inside [0.25, 1]: near 0, far 2 (1 - 0.5). Attractor 0 below: near 0.25, far 1.
    u, w = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.5, 0.5], [0.5, 0.0]])
    near, far = kernels.distance_range(torch.full((1, 2), 0.25), torch.ones(1, 2), u, w)
    assert near.tolist() == [[0.0, 0.25]] and far.tolist() == [[1.0, 1.0]]


# Triton's interpreter computes in numpy, which warns of overflow and invalid operations.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", ["x", "u", "w"])
@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf, "greatest", "minus greatest"])
def test_nan_infinity_and_overflow_come_out_as_in_the_reference(
    kernels: ModuleType, special: float | str, place: str, dtype: torch.dtype
) -> None:
    x, u, w, _ = operands((18, 6, 5), dtype)
    greatest = torch.finfo(dtype).max
    value = {"greatest": greatest, "minus greatest": -greatest}.get(special, special)  # type: ignore[call-overload]
    if place == "u":
        value = abs(value)
    {"x": x, "u": u, "w": w}[place][3, 2] = value
    assert_same(kernels.weighted_distance(x, u, w), mwd_reference.weighted_distance(x, u, w))
    upper = x + 0.1
    if place == "x" and value == -torch.inf:
        upper[3, 2] = 0.5
    for box in ((x, upper), (x - 0.1, x)):
        for ours, reference in zip(
            kernels.distance_range(*box, u, w), mwd_reference.distance_range(*box, u, w), strict=True
        ):
            assert_same(ours, reference)


@pytest.mark.parametrize("end", [0, 1])
def test_nan_in_one_end_of_a_box_is_not_swallowed(kernels: ModuleType, end: int) -> None:
    x, u, w, _ = operands((18, 6, 5), F64)
    box = [x, x + 0.1]
    box[end] = box[end].clone()
    box[end][3, 2] = torch.nan
    for ours in kernels.distance_range(*box, u, w):
        assert bool(ours[3].isnan().all()) and not bool(ours[4].isnan().any())


# --------------------------------------------------------------------------------------------------- gradients


def gradients(kernels: ModuleType, arguments: tuple[Tensor, ...], pseudo: bool, needs: Any = (True,) * 3) -> Any:
    x, u, w, grad = arguments
    z = mwd_reference.weighted_distance(x, u, w)
    return kernels.max_square_backward(x, u, w, z, grad, pseudo, needs)


def assert_gradients_close(ours: Any, reference: Any, tolerance: float) -> None:
    for a, b in zip(ours, reference, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert bool(((a - b).abs() <= tolerance * b.abs().max()).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.5, 3.0, 30.0])
def test_gradients_equal_the_reference_within_the_stated_tolerances(
    kernels: ModuleType, scale: float, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    arguments = operands(shape, dtype, scale=scale)
    for pseudo, tolerance in ((True, PSEUDO), (False, SUMS[dtype])):
        reference = gradients(mwd_reference, arguments, pseudo)
        assert_gradients_close(gradients(kernels, arguments, pseudo), reference, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_share_of_the_pseudogradient_is_within_tolerance(kernels: ModuleType, dtype: torch.dtype) -> None:
    # One unit: each entry of grad_x is a single share, so that no sum hides an error. s from 0.01 to 60.
    inputs = 200
    x = torch.linspace(-1.0, 1.0, inputs, dtype=dtype)[None]
    grad = torch.ones(1, 1, dtype=dtype)
    for scale in (0.1, 0.5, 0.999, 1.0, 1.001, 1.5, 3.0, 7.7):
        arguments = x, torch.full_like(x, scale), torch.zeros_like(x), grad
        ours, reference = (gradients(k, arguments, True)[0] for k in (kernels, mwd_reference))
        torch.testing.assert_close(ours, reference, rtol=PSEUDO, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pseudogradients_keep_weak_feedback_and_vanishing_shares(kernels: ModuleType, dtype: torch.dtype) -> None:
    # One unit, so each entry of grad_x is one term; rows of feedback from 1 down to 1e-9, of both signs, and zero.
    x = torch.tensor([[5.0, 1.0, -4.9, 0.0]], dtype=dtype).repeat(12, 1)
    grad = torch.logspace(0, -9, 12, dtype=dtype)[:, None] * torch.tensor([1.0, -1.0], dtype=dtype).repeat(6)[:, None]
    grad[7] = 0.0
    u, w = torch.ones(1, 4, dtype=dtype), torch.zeros(1, 4, dtype=dtype)
    ours, reference = (gradients(k, (x, u, w, grad), True)[0] for k in (kernels, mwd_reference))
    # Feedback 0 may count as 2^-125 of the strongest, times at most e^25.
    torch.testing.assert_close(ours, reference, rtol=PSEUDO, atol=1e-20)


@pytest.mark.parametrize("pseudo", [False, True])
def test_feedback_of_zero_gives_gradients_of_zero(kernels: ModuleType, pseudo: bool) -> None:
    x, u, w, grad = operands((17, 6, 5), F64)
    assert not any(bool(t.any()) for t in gradients(kernels, (x, u, w, 0.0 * grad), pseudo))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [6.5, 7.0, 18.5, 19.5, 1e3, 1e15, 1e18])
def test_pseudogradients_of_huge_distances_are_those_of_the_reference(
    kernels: ModuleType, size: float, dtype: torch.dtype
) -> None:
    x = torch.linspace(0.9, 1.0, 40, dtype=dtype).view(2, 20) * size
    arguments = x, torch.ones(3, 20, dtype=dtype), torch.zeros(3, 20, dtype=dtype), torch.ones(2, 3, dtype=dtype)
    # t^2 - s is a difference of numbers of this size, so it errs by a few roundings of theirs.
    tolerance = max(PSEUDO, 4 * torch.finfo(dtype).eps * size**2)
    if tolerance < 0.1:
        assert_gradients_close(
            gradients(kernels, arguments, True), gradients(mwd_reference, arguments, True), tolerance
        )
    assert all(bool(t.isfinite().all()) for t in gradients(kernels, arguments, True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_true_gradients_share_feedback_evenly_among_ties(kernels: ModuleType, dtype: torch.dtype) -> None:
    _, _, _, grad = operands((20, 6, 9), dtype)
    g = torch.Generator().manual_seed(2)
    # Small integers: many exact ties, of both signs, in some pairs and not in others.
    x = torch.randint(-2, 3, (20, 9), generator=g).to(dtype)
    u = torch.randint(0, 3, (6, 9), generator=g).to(dtype)
    u[5] = 0.0
    arguments = x, u, torch.zeros_like(u), grad
    z = mwd_reference.weighted_distance(*arguments[:3])
    winners = ((x[:, None] * u).abs() == z[:, :, None]).sum(dim=-1)
    assert bool((winners == 1).any()) and bool((winners == 2).any()) and bool((winners[:, 5] == 9).all())
    assert_gradients_close(
        gradients(kernels, arguments, False), gradients(mwd_reference, arguments, False), SUMS[dtype]
    )


@pytest.mark.parametrize("pseudo", [False, True])
def test_only_the_gradients_that_are_needed_come_back(kernels: ModuleType, pseudo: bool) -> None:
    arguments = operands((17, 6, 33), F64)
    whole = gradients(kernels, arguments, pseudo)
    for number in range(8):
        needs = tuple(bool(number >> k & 1) for k in range(3))
        for part, full, needed in zip(gradients(kernels, arguments, pseudo, needs), whole, needs, strict=True):
            assert (part is not None) == needed
            if needed:
                torch.testing.assert_close(part, full, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pseudo", [False, True])
def test_gradients_at_nan_are_nan(kernels: ModuleType, pseudo: bool) -> None:
    x, u, w, grad = operands((17, 6, 5), F64)
    u[2, 2] = 1.0
    x[3, 2] = torch.nan
    grad_x, _, grad_w = gradients(kernels, (x, u, w, grad), pseudo)
    assert bool(grad_x[3].isnan().any()) and bool(grad_w[2].isnan().any()) and not bool(grad_x[4].isnan().any())


def test_operands_may_have_any_strides(kernels: ModuleType) -> None:
    arguments = operands((17, 6, 33), F64)
    apart = tuple(scattered(t) for t in arguments)
    assert not any(t.is_contiguous() for t in apart)
    x, u, w, _ = arguments
    assert_same(kernels.weighted_distance(*apart[:3]), mwd_reference.weighted_distance(x, u, w))
    for ours, reference in zip(
        kernels.distance_range(apart[0], scattered(x + 0.1), *apart[1:3]),
        mwd_reference.distance_range(x, x + 0.1, u, w),
        strict=True,
    ):
        assert_same(ours, reference)
    for pseudo, tolerance in ((True, PSEUDO), (False, SUMS[F64])):
        assert_gradients_close(
            gradients(kernels, apart, pseudo), gradients(mwd_reference, arguments, pseudo), tolerance
        )


def test_triton_kernels_pass_through_their_interpreter() -> None:
    pytest.importorskip("triton")
    if INTERPRETED:
        pytest.skip("this is the inner run")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", "triton"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout


# ------------------------------------------------------------------------------------------------- numba only


@pytest.mark.parametrize("batch", [1, 15, 16, 17, 100, 112, 113, 129, 300, 1000])
def test_rows_come_back_from_lanes(batch: int) -> None:
    numba_kernels = _numba_kernels()
    width = numba_kernels.lane_width(batch)
    rows = torch.arange(batch * 5, dtype=F64).view(batch, 5) + 1.0
    lanes = numba_kernels.to_lanes(rows, width, 8, 4)
    assert lanes.shape == (-(-batch // width), 2, 4 * width) and float(lanes.sum()) == float(rows.sum())
    assert torch.equal(numba_kernels.from_lanes(lanes, width, batch, 5), rows)


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    numba_kernels = _numba_kernels()
    monkeypatch.setattr(numba_kernels, "THREAD_ELEMENTS", 1)
    x, u, w, grad = operands((50, 37, 21), F64)
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            z, near_far = numba_kernels.weighted_distance(x, u, w), numba_kernels.distance_range(x, x + 0.1, u, w)
            results.append([z, *near_far, *gradients(numba_kernels, (x, u, w, grad), True)])
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_loops_compile_where_no_cache_can_be_written() -> None:
    _numba_kernels()
    from encoders.layers.mwd_numba_loops import _compiled

    namespace: dict[str, Any] = {}
    # Source from a string has no file beside which numba could keep a cache: it raises, as without a writable folder.
    exec("def double(x):\n    return x + x", namespace)
    assert _compiled(namespace["double"], fast=False)(1.5) == 3.0


def _numba_kernels() -> ModuleType:
    pytest.importorskip("numba")
    return mwd_kernels._kernels("numba")


# ---------------------------------------------------------------------------------------------------- dispatch


LARGE = (64, 64, 64)


def test_small_problems_and_other_dtypes_go_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(mwd_kernels.VARIABLE, raising=False)
    for installed in (True, False):
        monkeypatch.setattr(mwd_kernels, "is_installed", lambda name, installed=installed: installed)
        expected = "numba" if installed else "reference"
        for dtype in DTYPES:
            assert mwd_kernels.choose(*operands(LARGE, dtype)[:3]) == expected
            assert mwd_kernels.choose(*operands((2, 3, 4), dtype)[:3]) == "reference"
        x, u, w, _ = operands(LARGE, F32)
        assert mwd_kernels.choose(x.bfloat16(), u.bfloat16(), w.bfloat16()) == "reference"
        assert mwd_kernels.choose(x.double(), u, w) == "reference"
        assert mwd_kernels.choose(*(t.to("meta") for t in (x, u, w))) == "reference"


def test_numba_compiles_for_values_only_after_so_many_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.delenv(mwd_kernels.VARIABLE, raising=False)
    asked: list[str] = []
    kernels = mwd_kernels._kernels
    monkeypatch.setattr(mwd_kernels, "_kernels", lambda name: asked.append(name) or kernels("reference"))
    monkeypatch.setattr(mwd_kernels, "ELEMENTS_BEFORE_COMPILING", 2 * 64**3)
    monkeypatch.setattr(mwd_kernels, "_DISTANCES", mwd_kernels.Uncompiled())
    monkeypatch.setattr(mwd_kernels, "_RANGES", mwd_kernels.Uncompiled())
    x, u, w, _ = operands(LARGE, F32)
    for _ in range(3):
        mwd_kernels.weighted_distance(x, u, w)
    mwd_kernels.distance_range(x, x, u, w)
    assert asked == ["reference", "reference", "numba", "reference"]


def test_without_numba_the_reference_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.delenv(mwd_kernels.VARIABLE, raising=False)
    x, u, w, _ = operands(LARGE, F32)
    fast = mwd_kernels.weighted_distance(x, u, w)
    mwd_kernels.is_installed.cache_clear()
    try:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert mwd_kernels.choose(x, u, w) == "reference"
        assert torch.equal(mwd_kernels.weighted_distance(x, u, w), fast)
    finally:
        mwd_kernels.is_installed.cache_clear()


def test_a_kind_of_kernels_can_be_forced_and_an_unknown_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, u, w, _ = operands((2, 3, 4), F64)
    monkeypatch.setenv(mwd_kernels.VARIABLE, "numba")
    assert mwd_kernels.choose(x, u, w) == "numba" and mwd_kernels.choose(x[:0], u, w) == "reference"
    monkeypatch.setenv(mwd_kernels.VARIABLE, "numpy")
    with pytest.raises(
        ValueError, match="ENCODERS_MWD_KERNELS='numpy' is unknown; supported: triton, numba, reference"
    ):
        mwd_kernels.weighted_distance(x, u, w)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_gives_the_same_intervals_and_values_by_either_kind(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    pytest.importorskip("numba")
    x, u, w, grad = operands(LARGE, dtype)
    negated = torch.arange(LARGE[1]) % 2 == 0
    op, box = Mwd(u, w, negated), Box(x - 0.1, x + 0.1)
    results = []
    for kind in ("numba", "reference"):
        monkeypatch.setenv(mwd_kernels.VARIABLE, kind)
        leaves = [t.clone().requires_grad_() for t in (x, u, w)]
        y = mwd(*leaves, negated, pseudo_share=1.0)
        interval, score = op.interval(box), op.score_box(box)
        exact = y.detach(), interval.lower, interval.upper, score.lower, score.upper
        results.append((exact, torch.autograd.grad(y, leaves, grad)))
    assert all(torch.equal(a, b) for a, b in zip(results[0][0], results[1][0], strict=True))
    assert_gradients_close(results[0][1], results[1][1], PSEUDO)


def test_a_second_derivative_is_refused() -> None:
    x, u, w, _ = operands((2, 3, 4), F64)
    s = max_square(x.requires_grad_(), u, w, True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(s.sum(), x, create_graph=True)


def test_no_kernel_makes_the_tensor_of_batch_units_and_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv(mwd_kernels.VARIABLE, "numba")
    shape = (128, 200, 300)
    arguments = operands(shape, F32)

    def all_passes() -> None:
        x, u, w, _ = arguments
        mwd_kernels.weighted_distance(x, u, w)
        mwd_kernels.distance_range(x, x + 0.1, u, w)
        gradients(mwd_kernels, arguments, True)  # type: ignore[arg-type]
        gradients(mwd_kernels, arguments, False)  # type: ignore[arg-type]

    all_passes()
    with torch.profiler.profile(profile_memory=True) as profile:
        all_passes()
    running = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            running += event.nbytes()
            peak = max(peak, running)
    assert 0 < peak < shape[0] * shape[1] * shape[2] * 4 / 10
