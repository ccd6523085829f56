"""The options that every question shares: one list, read by Python and by the command line alike."""

import argparse
import dataclasses
import inspect
import re
import subprocess
import sys
from typing import get_type_hints

import numpy as np
import pytest

import verifier
from encoders.limits import Limits
from tests.conftest import REPOSITORY
from verifier import certify
from verifier.arguments import COMMANDS, SHARING, parser, verb_arguments
from verifier.commands.detect_request import DetectOptions, DetectRequest
from verifier.commands.loaded_claims import Places
from verifier.commands.request import Options, Request, read_options
from verifier.commands.verify_request import VerifyOptions, VerifyRequest
from verifier.options import GROUPS, add_options, option_names
from verifier.training.adversaries import ADVERSARIES
from verifier.training.architectures import ARCHITECTURES
from verifier.training.recipes import RECIPES
from verifier.training.request import TrainOptions, TrainRequest
from verifier.training.tables import ATTACKS, NETWORKS, REGIMES

CASES = REPOSITORY / "tests" / "cases"


def options_of(command: str) -> dict[str, argparse.Action]:
    """Return the options of a command by their flags."""
    return {flag: action for action in subparser(command)._actions for flag in action.option_strings}


def positional(command: str) -> list[argparse.Action]:
    """Return the arguments of a command that have no flag."""
    return [action for action in subparser(command)._actions if not action.option_strings]


def subparser(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return commands.choices[command]


def test_options_and_request_have_the_same_fields_and_types():
    shared = [(Request, Options, {"model", "data"}), (TrainRequest, TrainOptions, {"name"})]
    for request, options, others in [*shared, (VerifyRequest, VerifyOptions, set())]:
        fields = {field.name for field in dataclasses.fields(request)} - others
        assert fields == set(options.__annotations__)
        assert fields - {"progress"} == set(option_names(request))
        for name in fields:
            assert options.__annotations__[name].__forward_arg__ == request.__annotations__[name], name


@pytest.mark.parametrize(
    ("command", "request_"),
    [
        *((name, Request) for name in SHARING),
        ("train", TrainRequest),
        ("verify", VerifyRequest),
        ("detect", DetectRequest),
    ],
)
def test_every_command_has_every_shared_option_with_the_default_of_its_field(command, request_):
    actions = {action.dest: action for action in options_of(command).values()}
    fields = {field.name: field for field in dataclasses.fields(request_)}
    for name in option_names(request_):
        assert actions[name].help, name
        assert actions[name].default == fields[name].default, name


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_reads_are_the_parameters_of_its_function(command):
    """So a command is called with what was read, by name."""
    function = getattr(verifier, command)
    parameters = inspect.signature(function).parameters
    shared = {
        "train": TrainOptions,
        "verify": VerifyOptions,
        "detect": DetectOptions,
        "check": Places,
        **dict.fromkeys(SHARING, Options),
    }.get(command)
    taken = ({*parameters} - {"options"}) | ({*shared.__annotations__} if shared else set())
    actions = options_of(command).values()
    read = {action.dest for action in actions} | {action.dest for action in positional(command)}
    assert read - {"help", "json", "debug"} == taken - {"progress"}
    namespace = argparse.Namespace(**dict.fromkeys(read), command=command)
    shared_names = {*Options.__annotations__} if command in SHARING else set()
    assert {*verb_arguments(namespace)} - {"help"} == read - {"help", "json", "debug"} - shared_names


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_stands_in_a_group_that_is_named(command):
    text = subparser(command).format_help()
    headings = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert set(headings) - {"options"} <= set(GROUPS) and "output" in headings
    assert text.split("options:")[1].split("\n\n")[0].count("--") == 1, "only --help is in no group"


def test_attacks_networks_and_regimes_of_training_are_those_of_the_tables():
    assert (tuple(ADVERSARIES), tuple(ARCHITECTURES)) == (ATTACKS, NETWORKS)
    assert {*REGIMES} == {*RECIPES} - {"interval-mwd"}


def test_what_the_command_line_reads_is_what_the_verbs_take():
    parser = argparse.ArgumentParser()
    add_options(dict.fromkeys(GROUPS, parser), Request)
    text = "--clip 0 255/255 --layout nhwc --mean 1/2 --std 0.25 --limit 3 --allow nodes=7 --norm 2 --time-limit 4"
    options = read_options(vars(parser.parse_args(text.split())), print)
    request = Request("model.onnx", "digits", **options)
    assert (request.clip, request.layout, request.mean, request.std) == ((0.0, 1.0), "nhwc", [0.5], [0.25])
    assert (request.limit, request.limits, request.norm, request.time_limit) == (3, Limits(nodes=7), "2", 4.0)
    assert (request.out, request.progress) == ("auto", print)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "chwn"}, "nchw, nhwc"),
        ({"norm": "3"}, "inf, 2, 1"),
        ({"time_limit": -1.0}, "not negative"),
        ({"time_limit": float("nan")}, "not"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Request("model.onnx", "digits", **options)


def test_an_option_that_does_not_exist_is_refused_by_python():
    with pytest.raises(TypeError, match="epsilom"):
        certify("digits-relu", "digits", [0.1], epsilom=0.1)


def test_data_in_another_layout_are_refused_with_the_option_that_reads_them():
    model, data = CASES / "layout" / "nchw.onnx", CASES / "layout" / "nhwc.npz"
    with pytest.raises(ValueError, match="--layout nhwc"):
        certify(model, data, [0.01], method="interval")
    result = certify(model, data, [0.01], method="interval", layout="nhwc")
    assert (result.inputs, result.correct) == (40, 40)


def test_a_limit_that_the_user_lifts_is_lifted(tmp_path):
    model, data = CASES / "layout" / "nchw.onnx", CASES / "layout" / "nchw.npz"
    with pytest.raises(ValueError, match="--allow"):
        certify(model, data, [0.01], method="interval", limits=Limits(data_bytes=100))
    assert certify(model, data, [0.01], method="interval", limits=Limits(data_bytes=10_000_000)).correct == 40


def test_help_needs_neither_numpy_nor_torch():
    program = "import sys, verifier.cli; verifier.arguments.parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "scipy"} & set(done.stdout.split())


def test_types_of_options_resolve():
    import torch.nn as nn

    from encoders.region import Norm

    assert get_type_hints(Options, localns={"nn": nn, "Norm": Norm})["offset"] is int


def test_a_reshape_that_changes_nothing_is_told_in_the_result_and_one_that_may_is_a_warning():
    images = np.zeros((3, 8, 8), dtype=np.float32)
    grey = certify(CASES / "layout" / "nchw.onnx", CASES / "layout" / "nchw.npz", [0.01], method="interval")
    assert "not clipped" in grey.data and grey.data == grey.to_json()["data"] and not grey.warnings
    flat = certify("digits-relu", (images, np.zeros(3, int)), [0.01], method="interval")
    assert "(8, 8) to (64,)" in flat.data and any("(8, 8)" in warning for warning in flat.warnings)
