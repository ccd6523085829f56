"""What a device may not do to sums is seen, on a pretended device whose arithmetic is spoiled, or on a real one."""

import pytest
import torch
from torch import Tensor

from tests import pretended_device
from tests.pretended_device import Pretended, run
from verifier.devices import arithmetic, choice
from verifier.devices.arithmetic import faults

F32, F64 = torch.float32, torch.float64
CPU = torch.device("cpu")
# Significant binary digits of TensorFloat-32, and of float64 put together of three pieces of 10.
SHORT = {F32: 11, F64: 30}
PRODUCTS = {"aten.mm.default", "aten.addmm.default", "aten.bmm.default"}
CONVOLUTIONS = {"aten.convolution.default"}


def shortened(x: Tensor) -> Tensor:
    """Round to so many digits."""
    mantissa, exponent = torch.frexp(x)
    scale = 2.0 ** SHORT[x.dtype]
    return torch.ldexp((mantissa * scale).round() / scale, exponent)


def common_exponent(x: Tensor) -> Tensor:
    """Round to a fixed point of 53 digits below the greatest of each row, as splittings into whole numbers do."""
    unit = 2.0 ** (x.abs().amax(dim=1, keepdim=True).log2().ceil() - 53)
    return (x / unit).round() * unit


def by_fourier(x: Tensor, kernel: Tensor) -> Tensor:
    """Return a convolution of 3 x 3 with a border of 1 by Fourier transforms."""
    size = [n + 2 for n in x.shape[2:]]
    spectrum = torch.fft.rfft2(torch.nn.functional.pad(x, (1, 1, 1, 1)), s=size)
    filters = torch.fft.rfft2(kernel.flip(2, 3), s=size)
    full = torch.fft.irfft2(torch.einsum("bchw,dchw->bdhw", spectrum, filters), s=size)
    return full[:, :, 2:, 2:]


def by_winograd(x: Tensor, kernel: Tensor) -> Tensor:
    """Return a convolution of 3 x 3 with a border of 1 by F(2 x 2, 3 x 3) (Lavin, Gray 2016)."""
    to_input = torch.tensor([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], dtype=x.dtype)
    to_kernel = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=x.dtype)
    to_output = torch.tensor([[1, 1, 1, 0], [0, 1, -1, -1]], dtype=x.dtype)
    tiles = torch.nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)
    tiles = to_input @ tiles @ to_input.T
    filters = to_kernel @ kernel @ to_kernel.T
    made = to_output @ torch.einsum("bcijkl,dckl->bdijkl", tiles, filters) @ to_output.T
    return made.permute(0, 1, 2, 4, 3, 5).reshape(x.shape)


def spoiled(monkeypatch, names, dtype, made) -> None:
    """Have operations of the pretended device on tensors of a dtype do something else."""

    def otherwise(function, arguments, keywords):
        tensors = [value for value in arguments if isinstance(value, Pretended)]
        if str(function) in names and tensors and tensors[0].held.dtype == dtype:
            return made(function, arguments, keywords)
        return run(function, arguments, keywords)

    monkeypatch.setattr(pretended_device, "run", otherwise)


def with_operands(change):
    """Return an operation whose two operands are changed before."""

    def made(function, arguments, keywords):
        first, second, *rest = arguments
        changed = [Pretended(change(value.held)) for value in (first, second)]
        return run(function, (*changed, *rest), keywords)

    return made


def convolved(convolve):
    return lambda function, arguments, keywords: Pretended(convolve(arguments[0].held, arguments[1].held))


def flushed(function, arguments, keywords):
    result = run(function, arguments, keywords)
    result.held.masked_fill_(result.held.abs() < torch.finfo(result.held.dtype).tiny, 0.0)
    return result


SPOILT = {
    "TensorFloat-32 in products": (PRODUCTS, F32, with_operands(shortened), "operands of products are rounded"),
    "few digits of float64": (PRODUCTS, F64, with_operands(shortened), "operands of products are rounded"),
    "float64 in pieces": (PRODUCTS, F64, with_operands(common_exponent), "products of matrices mix"),
    "TensorFloat-32 in convolutions": (CONVOLUTIONS, F32, with_operands(shortened), "convolutions mix"),
    "Winograd": (CONVOLUTIONS, F32, convolved(by_winograd), "convolutions mix"),
    "Winograd in float64": (CONVOLUTIONS, F64, convolved(by_winograd), "convolutions mix"),
    "Fourier transforms": (CONVOLUTIONS, F64, convolved(by_fourier), "convolutions mix"),
    "no subnormals": ({"aten.mul.Tensor"}, F32, flushed, "subnormal numbers"),
}


def test_the_processor_has_no_faults():
    assert faults(CPU) == []


def test_a_device_in_a_rigorous_context_has_no_faults(device):
    with choice.rigorous(device):
        assert faults(device) == []
        assert not torch.backends.cudnn.enabled and not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32


def test_what_spoils_convolutions_here_convolves():
    generator = torch.Generator().manual_seed(0)
    x, kernel = (torch.randn(*shape, generator=generator, dtype=F64) for shape in ((2, 3, 8, 8), (4, 3, 3, 3)))
    expected = torch.nn.functional.conv2d(x, kernel, padding=1)
    assert torch.allclose(by_fourier(x, kernel), expected)
    assert torch.allclose(by_winograd(x, kernel[:3]), expected[:, :3])


@pytest.mark.parametrize("name", SPOILT)
def test_a_device_that_spoils_sums_is_refused(name, request, monkeypatch):
    if request.config.getoption("--device") != "pretended":
        pytest.skip("a real device is not spoiled")
    device = request.getfixturevalue("device")
    names, dtype, made, words = SPOILT[name]
    spoiled(monkeypatch, names, dtype, made)
    assert any(words in found and str(dtype).removeprefix("torch.") in found for found in faults(device))
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with pytest.raises(ValueError, match=rf"would not be rigorous: .*{words}.*; use cpu"), choice.rigorous(device):
        raise AssertionError
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(ValueError, match="unset NVIDIA_TF32_OVERRIDE=1"), choice.rigorous(device):
        raise AssertionError


def test_settings_of_torch_are_as_before_after_a_rigorous_context(device):
    before = torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    with choice.rigorous(device):
        pass
    after = torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    assert before == after


def test_a_device_that_computes_nothing_says_so(monkeypatch):
    def broken(dtype, device):
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(arithmetic, "QUESTIONS", {"anything": broken})
    assert faults(CPU) == ["it computes nothing (no kernel image is available for execution on the device)"]
