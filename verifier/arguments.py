"""What each command takes on the command line, with an example of each; help is made without numpy or torch.

An option's destination is the name of the parameter of the verb's function. What every question shares stands in
`verifier.commands.request`, what training takes in `verifier.training.request`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verifier.commands.attack_settings import SETTINGS, ReadSetting
from verifier.commands.detect_request import DetectRequest
from verifier.commands.request import Request
from verifier.commands.verify_request import ReadNetworks, VerifyRequest
from verifier.options import GROUPS, add_options, number, option_names, radius, sample, target
from verifier.training.request import TrainRequest
from verifier.training.tables import NETWORKS

MODEL = "a file (.onnx, .pt2, .safetensors), or digits-mwd, digits-relu, digits-conv"
DATA = "digits, mnist, fashion-mnist, cifar10, a .npz with x and y, or a .csv"
EPSILON = "radius, raw input units; 8/255 works"

Groups = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    examples = "\n".join(f"  verifier {example}" for _, example, _ in COMMANDS.values())
    whole = argparse.ArgumentParser(
        prog="verifier",
        description="Prove, measure and improve the robustness of neural networks.",
        epilog=f"examples:\n{examples}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="print the version and exit"
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (words, example, add) in COMMANDS.items():
        command = commands.add_parser(name, help=words, description=words, epilog=f"example: verifier {example}")
        groups = {group: command.add_argument_group(group) for group in GROUPS}
        add(groups)
        groups["output"].add_argument("--debug", action="store_true", help="show where an error was raised")
    return whole


def verb_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is the command's own among parsed arguments, by the parameters of the verb's function."""
    shared = {*option_names(Request)} if options.command in SHARING else set()
    others = shared | {"command", "json", "debug", "output"}
    return {name: value for name, value in vars(options).items() if name not in others}


def _add_certify(groups: Groups) -> None:
    add = groups["question"].add_argument
    words = "radii, raw input units; 8/255 works"
    add("--epsilon", required=True, nargs="+", type=radius, dest="epsilons", metavar="E", help=words)
    add("--method", default="auto", metavar="NAME", help="of `verifier show --methods`; auto: all that apply (default)")
    words = "ask whether all outputs change by less than this, instead of the class; needs no labels"
    add("--delta", type=radius, metavar="D", help=words)
    words = "of a randomised network, ask about every draw with weights within K deviations of their means"
    add("--draws-within", type=radius, metavar="K", help=words)
    words = "real numbers (default), or that of the model, as float32: then no execution in it may change the class"
    add("--arithmetic", default="real", metavar="NAME", help=words)
    _add_certificates(groups)
    _add_shared(groups)


def _add_attack(groups: Groups) -> None:
    add = groups["question"].add_argument
    add("--attack", required=True, dest="name", metavar="NAME", help="of `verifier show --attacks`: pgd, auto, ...")
    add("--epsilon", required=True, type=radius, metavar="E", help=EPSILON)
    add("--target", type=target, metavar="T", help="a class, second or least-likely: count only that class as success")
    words = "search this model instead, and let MODEL only judge what is found (transfer)"
    add("--surrogate", metavar="SURROGATE", help=words)
    add("--vote", type=int, metavar="N", help="of a randomised network, also take the votes of N draws")
    for flag, words in SETTINGS.items():
        reads = {"pseudogradients": str, "steps": int, "restarts": int, "draws": int, "queries": int}.get(flag, number)
        metavar = "WHICH" if reads is str else "N" if reads is int else "R"
        add(f"--{flag}", action=ReadSetting, dest="settings", type=reads, metavar=metavar, help=words)
    _add_shared(groups)


def _add_robustness(groups: Groups) -> None:
    add = groups["question"].add_argument
    add("--epsilon", required=True, type=radius, metavar="E", help=EPSILON)
    add("--method", default="interval", metavar="NAME", help="what proves (default: interval)")
    names = "attack, restriction (both by default), restriction-second, restriction-all, or an attack's name"
    add("--estimator", nargs="+", default=(), dest="estimators", metavar="NAME", help=names)
    add("--alpha", type=radius, default=0.0, metavar="A", help="margin that the programs demand")
    add("--levels", type=int, metavar="N", help="count only points on the grid k/N; 255: whole pixels")
    solvers = "of the programs: highs (default, warm), cvxpy, pulp, cvxpy:NAME, pulp:NAME"
    add("--solver", default="highs", metavar="NAME", help=solvers)
    _add_shared(groups)


def _add_compare(groups: Groups) -> None:
    add = groups["question"].add_argument
    add("--epsilon", required=True, type=radius, metavar="E", help=EPSILON)
    add("--method", nargs="+", default=(), dest="methods", metavar="NAME", help="methods to compare (default: all)")
    _add_shared(groups)


def _add_shared(groups: Groups) -> None:
    """Add what every command takes that asks something about the inputs of a data set."""
    groups["question"].add_argument("model", metavar="MODEL", help=MODEL)
    groups["data"].add_argument("--data", required=True, metavar="DATA", help=DATA)
    add_options(groups, Request)
    _add_json(groups)


def _add_verify(groups: Groups) -> None:
    add = groups["question"].add_argument
    add("model", metavar="MODEL", help=MODEL)
    add("properties", nargs="+", metavar="PROPERTY", help="VNN-LIB files (.vnnlib, .vnnlib.gz)")
    words = "write the verdict, after sat the witness, as VNN-COMP does"
    groups["output"].add_argument("--results", type=Path, metavar="FILE", help=words)
    _add_certificates(groups)
    add_options(groups, VerifyRequest)
    _add_json(groups)


def _add_train(groups: Groups) -> None:
    groups["question"].add_argument("name", metavar="NAME", help=", ".join(NETWORKS))
    groups["data"].add_argument("--data", required=True, metavar="DATA", help=DATA)
    words = "the .safetensors file to write"
    groups["output"].add_argument("--out", required=True, type=Path, metavar="FILE", help=words)
    add_options(groups, TrainRequest)
    _add_json(groups)


def _add_detect(groups: Groups) -> None:
    add = groups["question"].add_argument
    add("action", metavar="ACTION", help="fit: write a detector; score: measure one")
    add("model", metavar="MODEL", help=MODEL)
    add("--detector", required=True, type=Path, metavar="FILE", help="the .safetensors file, written or read")
    groups["data"].add_argument("--data", required=True, metavar="DATA", help=DATA)
    add_options(groups, DetectRequest)
    _add_json(groups)


def _add_check(groups: Groups) -> None:
    groups["question"].add_argument("run", metavar="RUN", type=Path, help="the folder of a run")
    allow = "do not refuse proofs that could have a certificate and have none"
    groups["question"].add_argument("--allow-uncertified", action="store_true", help=allow)
    exact = "evaluate certificates in exact arithmetic, too, by a program that shares no code with this one"
    add = groups["question"].add_argument
    add("--exact", nargs=0, action=_All, default=0, help=exact)
    add("--sample", dest="exact", type=sample, metavar="K", help="the same of K certificates, drawn at random")
    words = "seconds of exact arithmetic for a certificate; what takes longer is not decided"
    groups["limits"].add_argument("--time-limit", type=number, metavar="S", help=words)
    add = groups["data"].add_argument
    add("--model", metavar="MODEL", help="where the run's model is now (default: where the run found it)")
    add(
        "--data",
        metavar="DATA",
        help="where the run's data are now; of a run of verify the folder of its property files",
    )
    add("--data-dir", type=Path, metavar="DIR", help="where the files of named data lie")
    words = "where a further network of a run of verify is now"
    add("--network", dest="networks", action=ReadNetworks, metavar="NAME=FILE", help=words)
    _add_json(groups)


def _add_report(groups: Groups) -> None:
    groups["question"].add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, side by side")
    groups["output"].add_argument("--out", required=True, metavar="FILE", help="the page; one there is replaced")
    groups["output"].add_argument("--title", metavar="TEXT", help="of the page")
    _add_json(groups)


def _add_export(groups: Groups) -> None:
    groups["question"].add_argument("run", metavar="RUN", help="the folder of a run")
    add = groups["output"].add_argument
    add("--format", default="csv", metavar="NAME", help="csv (default), latex, parquet, or smt-lib: proofs")
    words = "summary (default): the counts; classes: by label at the largest radius; inputs: a row for each"
    add("--table", default="summary", metavar="NAME", help=words)
    add("--out", metavar="FILE", help="a file, of smt-lib a folder, that does not exist yet (default: standard output)")
    _add_json(groups)


def _add_merge(groups: Groups) -> None:
    groups["question"].add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folders of finished runs")
    words = "the folder of the merged run"
    groups["output"].add_argument("--out", required=True, type=Path, metavar="DIR", help=words)
    _add_json(groups)


def _add_show(groups: Groups) -> None:
    add = groups["question"].add_argument
    add("model", nargs="?", metavar="MODEL", help=MODEL)
    add("--methods", action="store_true", help="list the methods; with MODEL also those that do not take it, and why")
    add("--attacks", action="store_true", help="list the attacks")
    add(
        "--supports",
        action="store_true",
        help="list the nodes of MODEL that are not supported, and what to do",
    )
    _add_json(groups)


def _add_certificates(groups: Groups) -> None:
    keep = "keep a certificate of every proof, for `verifier check` (default: with --method exact)"
    groups["output"].add_argument("--certificates", action=argparse.BooleanOptionalAction, default=None, help=keep)


def _add_json(groups: Groups) -> None:
    words = "print one JSON object; progress goes to standard error"
    groups["output"].add_argument("--json", action="store_true", help=words)


class _All(argparse.Action):
    """Asks for all, unless a number is given, too."""

    def __call__(self, _: argparse.ArgumentParser, namespace: argparse.Namespace, *__: object) -> None:
        setattr(namespace, self.dest, getattr(namespace, self.dest) or float("inf"))


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import sys
        from importlib.metadata import version

        print(version("robustness-verifier"), file=sys.stdout)
        parser.exit()


# By name: what the command is for, an example, and what it takes.
COMMANDS: dict[str, tuple[str, str, Callable[[Groups], None]]] = {
    "certify": (
        "robustness of a saved model: certified, falsified, open",
        "certify model.onnx --data data.npz --epsilon 2/255 8/255 --clip 0 1",
        _add_certify,
    ),
    "attack": (
        "search for adversarial inputs: what withstands, how far the rest is",
        "attack model.onnx --data data.npz --attack auto --epsilon 8/255",
        _add_attack,
    ),
    "robustness": (
        "adversarial frequency and severity: how often, how badly",
        "robustness digits-relu --data digits --epsilon 0.05",
        _add_robustness,
    ),
    "compare": (
        "tightness and cost of every method that applies, side by side",
        "compare digits-relu --data digits --epsilon 0.04 --limit 100",
        _add_compare,
    ),
    "verify": (
        "any property: unsat (it holds), sat (with a witness), unknown, timeout",
        "verify model.onnx property.vnnlib --time-limit 60 --results results.txt",
        _add_verify,
    ),
    "train": (
        "train a network that certify can read: mwd, mwd-conv, relu, ...",
        "train mwd --data mnist --out model.safetensors",
        _add_train,
    ),
    "detect": (
        "flag perturbed inputs",
        "detect fit digits-relu --data digits --detector odds.safetensors",
        _add_detect,
    ),
    "check": (
        "claims of a run: evaluate its certificates again, replay its witnesses",
        "check runs/certify-0123456789ab",
        _add_check,
    ),
    "report": (
        "runs as one page for a browser: curves, brackets, counterexamples, what is open",
        "report runs/certify-0123456789ab --out page.html",
        _add_report,
    ),
    "export": (
        "the numbers of a run as csv, latex or parquet",
        "export runs/certify-0123456789ab --format latex",
        _add_export,
    ),
    "merge": (
        "one run of the runs of parts: of --shard, or of ranges of the inputs",
        "merge runs/part-1 runs/part-2 --out runs/whole",
        _add_merge,
    ),
    "show": (
        "what a model file holds; which methods and attacks there are",
        "show digits-conv --methods",
        _add_show,
    ),
}
# Commands that ask something about a model and data.
SHARING = ("certify", "attack", "robustness", "compare")
