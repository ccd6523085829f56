"""A device is taken by what was measured, and one that is not there or not rigorous is refused in a sentence."""

import contextlib

import pytest
import torch
from torch import nn

from encoders import write_network
from tests.networks.chains import random_relu_network
from verifier.cli import main
from verifier.devices import choice
from verifier.devices.choice import choose_device, work_of, work_of_module
from verifier.subject import load_subject

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def there(monkeypatch):
    """Have torch find a device whose arithmetic is right, and which pays from 1,000 multiply-adds on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(choice, "break_even", lambda device: 1000.0)
    monkeypatch.setattr(choice, "faults", lambda device: [])


@pytest.mark.parametrize(("device", "work", "chosen"), [
    ("auto", 999.0, CPU), ("auto", 1000.0, CUDA), ("cuda", 0.0, CUDA), ("cpu", 1e9, CPU),
])  # fmt: skip
def test_a_device_is_taken_from_the_work_on_from_which_it_pays(device, work, chosen, there):
    assert choose_device(device, lambda: work) == chosen


def test_without_a_device_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(choice, "break_even", lambda device: pytest.fail("measured"))
    assert choose_device("auto", lambda: 1e12) == CPU


def test_a_device_on_which_bounds_are_not_rigorous_is_left_out_or_refused(there, monkeypatch):
    monkeypatch.setattr(choice, "faults", lambda device: ["sums are wrong"])
    with pytest.warns(UserWarning, match="the processor works in place of the GPU: bounds on cuda .*sums are wrong"):
        assert choose_device("auto", lambda: 1e12) == CPU
    with pytest.raises(ValueError, match="bounds on cuda would not be rigorous: sums are wrong; use cpu"):
        choose_device("cuda", lambda: 1e12)


def test_a_device_that_is_not_there_ends_commands_with_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train = ["train", "relu", "--data", "digits", "--out", str(tmp_path / "m.safetensors")]
    asked = ["digits-relu", "--data", "digits", "--epsilon", "0.1", "--limit", "2", "--out", str(tmp_path / "run")]
    for command in (["certify", *asked], ["robustness", *asked], train):
        assert main([*command, "--device", "cuda"]) == 2
        said = capsys.readouterr()
        assert not said.out and "device cuda was asked for, but torch finds none here; use auto or cpu" in said.err
        assert main([*command, "--device", "tpu"]) == 2
        assert "unknown device 'tpu'; supported: auto, cpu, cuda" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_work_is_that_of_a_batch_of_a_network_and_of_one_input_of_a_module():
    # Products 4 * 8 and 8 * 3, biases and relus of 8, 8 and 3 units: for 64 inputs.
    network = random_relu_network(0, (4, 8, 3))
    products, single = 4 * 8 + 8 * 3, 8 + 8 + 3
    assert 64 * products <= work_of(network) <= 64 * (products + 2 * single)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 5))
    assert work_of_module(module, torch.zeros(1, 1, 8, 8)) == 2 * 36 * 9 + 72 * 5


def test_a_model_is_put_where_its_work_pays(there, tmp_path, monkeypatch):
    write_network(random_relu_network(0, (4, 8, 3)), tmp_path / "model.safetensors")
    assert load_subject(tmp_path / "model.safetensors").device == CUDA
    monkeypatch.setattr(choice, "break_even", lambda device: 1e9)
    monkeypatch.setattr(choice, "rigorous", contextlib.nullcontext)
    assert load_subject(tmp_path / "model.safetensors").device == CPU
