"""Settings of attacks: what they change, who has them, and that nothing changes unless it is asked for."""

import argparse

import pytest

from encoders.formats.torch_export import from_module
from encoders.layers import Mwd
from tests.networks.chains import random_relu_network
from verifier import attack
from verifier.arguments import parser
from verifier.attacks import ATTACKS
from verifier.attacks.settings import CHANGES, attack_with, is_masked
from verifier.attacks.source import Source, pseudogradient


@pytest.mark.parametrize("name", list(ATTACKS))
def test_without_settings_an_attack_is_that_of_the_table(name):
    assert attack_with(name, {}) is ATTACKS[name]


def test_settings_change_what_they_name():
    pgd = attack_with("pgd", {"steps": 7, "step": 0.3, "restarts": 2, "pseudogradients": "no"})
    assert (pgd.steps, pgd.rule.length, pgd.restarts, pgd.sources) == (7, 0.3, 2, (Source,))
    assert attack_with("pgd-plain", {"step": 3.0}).rule.length == 3.0
    assert attack_with("apgd", {"step": 1.5}).rule.length == 1.5
    assert attack_with("square", {"queries": 50}).queries == 50 and attack_with("corners", {"queries": 9}).count == 9
    assert attack_with("cw", {"kappa": 2.0}).kappa == 2.0 and attack_with("lbfgs", {"alpha": 0.15}).alpha == 0.15
    assert attack_with("fab", {"restarts": 1, "steps": 3}).steps == 3
    assert attack_with("ifgsm", {"pseudogradients": "only"}).sources == (pseudogradient,)
    both = attack_with("fgsm", {"pseudogradients": "both"})
    assert (both.sources, both.restarts, both.steps) == ((Source, pseudogradient), 2, 1)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("fgsm", {"kappa": 1.0}, "no kappa of 1.0 to set; supported by cw, cw-l0$"),
        ("fgsm", {"steps": 2}, "supported by ifgsm"), ("square", {"restarts": 2}, "supported by fgsm"),
        ("cw", {"alpha": 0.1}, "supported by lbfgs$"), ("pgd", {"queries": 5}, "supported by corners, square$"),
        ("deepfool", {"pseudogradients": "both"}, "supported by fgsm"), ("pgd", {"steps": 0}, "positive"),
        ("pgd", {"pseudogradients": "maybe"}, "no, only, both"), ("cw", {"kappa": -1.0}, "negative"),
        ("pgd", {"step": float("nan")}, "positive"), ("pgd", {"pace": 1}, "supported: steps, step"),
        ("auto", {"kappa": 5.0}, "supported by cw"),
    ],
)  # fmt: skip
def test_settings_that_an_attack_lacks_are_refused(name, settings, words):
    with pytest.raises(ValueError, match=words):
        attack_with(name, settings)


def test_the_command_line_has_every_setting_and_collects_them():
    text = "attack m.onnx --data digits --attack pgd --epsilon 0.1 --steps 3 --step 1/4 --pseudogradients only"
    assert parser().parse_args(text.split()).settings == {"steps": 3, "step": 0.25, "pseudogradients": "only"}
    plain = parser().parse_args(["attack", "m.onnx", "--data", "digits", "--attack", "pgd", "--epsilon", "0.1"])
    assert plain.settings is None
    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    flags = {flag for action in commands.choices["attack"]._actions for flag in action.option_strings}
    assert {f"--{name}" for name in CHANGES} <= flags


def test_a_run_keeps_its_settings_apart(tmp_path):
    folders, robust = set(), []
    for settings in ({}, {"steps": 1}, {"steps": 1, "restarts": 1}):
        result = attack(
            "digits-relu", "digits", "pgd", 0.1, settings=settings, limit=20, out=tmp_path / str(len(folders))
        )
        folders.add(result.records.parent.name)
        robust.append(result.robust)
        assert result.to_json().get("settings", {}) == settings
        with pytest.raises(ValueError, match=r"another|other"):
            attack("digits-relu", "digits", "pgd", 0.1, settings={"steps": 9}, limit=20, out=result.records.parent)
    assert robust[0] <= robust[1] <= robust[2]


def test_descents_on_true_gradients_alone_say_so_on_mwd_networks():
    import torch

    torch.manual_seed(0)
    mwd = from_module(torch.nn.Sequential(Mwd(4, 3)), (4,))
    relu = random_relu_network(0, (4, 3, 3))
    assert is_masked(ATTACKS["fgsm"], mwd) and is_masked(ATTACKS["ifgsm"], mwd)
    assert not is_masked(ATTACKS["pgd"], mwd) and not is_masked(ATTACKS["fgsm"], relu)
    assert not is_masked(attack_with("fgsm", {"pseudogradients": "both"}), mwd)
    warnings = {
        name: attack("digits-mwd", "digits", name, 0.1, limit=5, out=None).warnings for name in ("ifgsm", "pgd")
    }
    assert any("mask" in words for words in warnings["ifgsm"]) and not any("mask" in w for w in warnings["pgd"])
