"""Numbers of leaves come out of a file as they went in, short ones in a few bytes."""

import numpy as np
import pytest

from verifier.certificates.packed import narrow, pack, unpack

ODD = (0.0, -0.0, 1.0, 1 / 255, 0.1, 2.0**-149, 1e-320, 1e300, -1e300, 3.5, -0.4375)


@pytest.mark.parametrize("seed", range(8))
def test_numbers_come_out_as_they_went_in(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sets, units = int(generator.integers(0, 9)), int(generator.integers(0, 7))
    slopes = generator.integers(0, 256, (sets, units)) / 255
    multipliers = generator.integers(-128, 128, (sets, units)) * 2.0 ** generator.integers(-90, 90, (sets, units))
    short = pack(slopes, multipliers)
    assert "long" not in short and short["slopes"].dtype == short["multipliers"].dtype == np.uint8
    odd = generator.random((sets, units)) < 0.1
    mixed = np.where(odd, generator.choice(ODD, (sets, units)), multipliers)
    for first, second in ((slopes, multipliers), (slopes, mixed), (mixed, multipliers)):
        again = unpack(pack(first, second))
        assert np.array_equal(again[0], first) and np.array_equal(again[1], second)


@pytest.mark.parametrize("number", [np.inf, -np.inf])
def test_a_short_multiplier_that_is_not_finite_is_refused(number: float) -> None:
    """Long ones are refused where a file's arrays are read."""
    short = pack(np.array([[0.0, 1.0]]), np.array([[number, 1.0]]))
    assert "long" not in short
    with pytest.raises(ValueError, match="no finite number"):
        unpack(short)


def test_arrays_that_do_not_go_together_are_refused() -> None:
    arrays = pack(np.array([[0.5, 1.0], [0.1, 0.0]]), np.array([[0.1, 2.0], [1.0, 0.0]]))
    assert arrays["long"].tolist() == [True, True]
    whole = pack(np.ones((3, 2)), np.ones((3, 2)))
    for other in (
        arrays | {"long": arrays["long"][:1]}, arrays | {"long.slopes": np.zeros((2, 5))},
        arrays | {"long.multipliers": np.zeros((3, 2))}, whole | {"slopes": whole["slopes"].astype(np.float64)},
        whole | {"multipliers": whole["multipliers"].astype(np.uint16)},
        whole | {"multipliers": np.zeros((1, 2, 3), dtype=np.uint8)},
    ):  # fmt: skip
        with pytest.raises((ValueError, IndexError)):
            unpack(other)


def test_integers_and_floats_are_narrowed_where_nothing_is_lost() -> None:
    for values, kind in (([0, 255], np.uint8), ([-1, 7], np.int8), ([0, 256], np.uint16), ([-1, 300], np.int16)):
        made = narrow(np.array(values, dtype=np.int64))
        assert made.dtype == kind and made.tolist() == values
    assert narrow(np.array([1 << 40])).tolist() == [1 << 40]
    assert narrow(np.array([0.5, 0.1]), (np.float32, np.float64)).dtype == np.float64
    assert narrow(np.array([0.5]), (np.float32, np.float64)).dtype == np.float32
