"""The command line: arguments in, one call, a table or JSON out. No logic.

argparse, because `--epsilon 0.05 0.1` takes several values after one option and because help must not wait for
heavier imports. Exit status: 0 a result was produced, 1 two methods contradict each other (a bug) or a claim of a run
does not hold, 2 the request cannot be carried out, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from verifier.commands.help import EXAMPLES, Version
from verifier.commands.request import read_options, shared_arguments
from verifier.commands.values import number
from verifier.commands.values import radius as _radius
from verifier.commands.values import target as _target
from verifier.output import results_stream

if TYPE_CHECKING:
    from rich.console import Console

    from verifier.commands.attack import AttackResult
    from verifier.commands.certify import CertifyResult
    from verifier.commands.compare import CompareResult
    from verifier.commands.robustness import RobustnessResult

EXIT_CONTRADICTION = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = _parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        return 0
    options = parser.parse_args(arguments)
    try:
        # A program that is about to end leaves descriptor 1 turned away: libraries may print when they are unloaded.
        with results_stream(restore=arguments is not None) as options.output:
            return int(options.run(options))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues a run that has a folder", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if options.debug:
            raise
        print(f"verifier {options.command}: {error}", file=sys.stderr)
        return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="verifier",
        description="Prove, measure and improve the robustness of neural networks.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=Version, nargs=0, default=argparse.SUPPRESS, help="print the version and exit"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    certify = commands.add_parser("certify", help="robustness of a saved model: certified, falsified, open")
    _add_certify_options(certify)
    certify.set_defaults(run=_certify)
    attack = commands.add_parser("attack", help="search for adversarial inputs: what withstands, how far the rest is")
    _add_attack_options(attack)
    attack.set_defaults(run=_attack)
    robustness = commands.add_parser("robustness", help="adversarial frequency and severity: how often, how badly")
    _add_robustness_options(robustness)
    robustness.set_defaults(run=_robustness)
    compare = commands.add_parser("compare", help="tightness and cost of every method that applies, side by side")
    _add_compare_options(compare)
    compare.set_defaults(run=_compare)
    train = commands.add_parser("train", help="train a network that certify can read: mwd, mwd-conv, relu, ...")
    _add_train_options(train)
    train.set_defaults(run=_train)
    check = commands.add_parser("check", help="claims of a run: evaluate its certificates again, replay its witnesses")
    _add_check_options(check)
    check.set_defaults(run=_check)
    show = commands.add_parser("show", help="what a model file holds: graph, shapes, weights, views")
    show.add_argument("model", metavar="MODEL", help="a file (.onnx, .pt2, .safetensors) or a shipped model")
    show.add_argument("--debug", action="store_true", help="show where an error was raised")
    show.set_defaults(run=_show)
    return parser


def _add_certify_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--epsilon", required=True, nargs="+", type=_radius, metavar="E", help="radii, raw input units; 8/255 works")
    add("--method", default="auto", help="interval, crown, lp, exact, milp, ...; auto: all that apply (default)")
    keep = "keep a certificate of every proof, for `verifier check` (default: with --method exact)"
    add("--certificates", action=argparse.BooleanOptionalAction, default=None, help=keep)
    _add_job_options(parser)


def _add_check_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", metavar="RUN", type=Path, help="the folder of a run")
    add("--model", metavar="MODEL", help="where the run's model is now (default: where the run found it)")
    add("--data", metavar="DATA", help="where the run's data are now")
    add("--data-dir", type=Path, metavar="DIR", help="where the files of named data lie")
    allow = "do not refuse proofs that could have a certificate and have none"
    add("--allow-uncertified", action="store_true", help=allow)
    add("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    add("--debug", action="store_true", help="show where an error was raised")


def _add_attack_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--attack", required=True, metavar="NAME", help="fgsm, pgd, deepfool, cw, auto, ...; any other lists them all")
    add("--epsilon", required=True, type=_radius, metavar="E", help="radius, raw input units; 8/255 works")
    add("--target", type=_target, metavar="T", help="a class, second or least-likely: count only that class as success")
    _add_job_options(parser)


def _add_robustness_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--epsilon", required=True, type=_radius, metavar="E", help="radius, raw input units; 20/255 works")
    add("--method", default="interval", help="what proves (default: interval)")
    names = "attack, restriction (both by default), restriction-second, restriction-all, or an attack's name"
    add("--estimator", nargs="+", default=(), dest="estimators", metavar="NAME", help=names)
    add("--alpha", type=_radius, default=0.0, metavar="A", help="margin that the programs demand")
    add("--levels", type=int, metavar="N", help="count only points on the grid k/N; 255: whole pixels")
    add("--solver", default="highs", help="of the programs: highs (default, warm), cvxpy, pulp, cvxpy:NAME, pulp:NAME")
    _add_job_options(parser)


def _add_compare_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--epsilon", required=True, type=_radius, metavar="E", help="radius, raw input units; 8/255 works")
    add("--method", nargs="+", default=(), dest="methods", metavar="NAME", help="methods to compare (default: all)")
    _add_job_options(parser)


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes that asks something about the inputs of a data set."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a file (.onnx, .pt2, .safetensors), or digits-mwd, digits-relu, digits-conv")
    add("--data", required=True, metavar="DATA", help="digits, mnist, fashion-mnist, cifar10, or a .npz with x and y")
    for flag, argument in shared_arguments().items():
        add(flag, **argument)
    add("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    add("--debug", action="store_true", help="show where an error was raised")


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("network", metavar="NAME", help="mwd, mwd-conv, relu, sigmoid, lenet or lenet-linear-convolutions")
    add("--data", required=True, metavar="DATA", help="digits, mnist, fashion-mnist, cifar10, or a .npz")
    add("--out", required=True, type=Path, metavar="FILE", help="the .safetensors file to write")
    add("--epochs", type=int, default=30)
    add("--hidden", nargs="+", type=int, default=(), metavar="N", help="sizes of the hidden layers")
    add("--types", nargs="+", default=(), metavar="T", help="mwd: plain, negated or mixed for each layer")
    add("--batch", type=int, default=100)
    add("--learning-rate", type=float, metavar="R", help="default: 5 for mwd, 1 for relu and sigmoid, .01 certified")
    add("--schedule", default="cosine", help="cosine (default) or constant")
    add("--pseudo-share", type=float, default=1.0, metavar="R", help="mwd: gradients, 1 pseudo (default) to 0 true")
    add("--sharpness", type=number, metavar="B", help="mwd: of pseudogradients; default: 1, certified 4")
    add("--attack", metavar="NAME", help="mix in adversarial examples: fgsm, ifgsm or pgd")
    add("--attack-epsilon", type=_radius, default=0.3, metavar="E")
    add("--mixing", choices=("batch", "steps"), default="batch", help="one step on both halves, or one on each")
    add("--certified-epsilon", type=_radius, default=0.0, metavar="E", help="mwd: train on interval ends")
    add("--certified-share", type=float, default=0.5, metavar="K", help="mwd: share of the interval ends in the loss")
    add("--sensitivity-cost", type=_radius, default=0.0, metavar="C", help="mwd: penalise Lipschitz bounds")
    add("--start", type=Path, metavar="FILE", help="mwd: start from the weights of this file")
    add("--limit", type=int, metavar="N", help="use the first N inputs")
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--data-dir", type=Path, metavar="DIR", help="where the files of named data lie")
    add("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    add("--debug", action="store_true", help="show where an error was raised")


def _train(options: argparse.Namespace) -> int:
    from verifier.commands.train import train
    from verifier.reports.progress import progress_on_stderr

    others = ("run", "command", "json", "debug", "output")
    settings = {key: value for key, value in vars(options).items() if key not in others}
    name, data, out = (settings.pop(key) for key in ("network", "data", "out"))
    with progress_on_stderr("train", "batches") as progress:
        result = train(name, data, out, progress=progress, **settings)
    if options.json:
        content = {"schema": 1, "command": "train", "out": str(result.out), **result.metadata}
        print(json.dumps(content), file=options.output)
    else:
        best = result.history.best_epoch
        score = f"validation score {result.history.scores[best]:.2%}"
        print(f"{result.out}: best epoch {best + 1}, {score}", file=options.output)
    return 0


def _certify(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds to load and --help must not wait for it.
    from verifier.commands.certify import certify
    from verifier.reports.progress import progress_on_stderr

    with progress_on_stderr("certify") as progress:
        result = certify(
            options.model,
            options.data,
            options.epsilon,
            method=options.method,
            certificates=options.certificates,
            **read_options(vars(options), progress),
        )
    _report(result, options.json, options.output)
    return 0


def _check(options: argparse.Namespace) -> int:
    from verifier.commands.check import check
    from verifier.reports.check import counts, refusals
    from verifier.reports.progress import progress_on_stderr

    with progress_on_stderr("check") as progress:
        names = ("model", "data", "data_dir", "allow_uncertified")
        result = check(options.folder, progress=progress, **{name: getattr(options, name) for name in names})
    if options.json:
        print(json.dumps(result.to_json(), allow_nan=False), file=options.output)
    else:
        print("\n".join(counts(result)), file=options.output)
    for line in refusals(result):
        print(f"refused: {line}", file=sys.stderr)
    return EXIT_CONTRADICTION if result.refused else 0


def _attack(options: argparse.Namespace) -> int:
    from verifier.commands.attack import attack
    from verifier.reports.progress import progress_on_stderr

    with progress_on_stderr("attack") as progress:
        result = attack(
            options.model,
            options.data,
            options.attack,
            options.epsilon,
            target=options.target,
            **read_options(vars(options), progress),
        )
    _report_attack(result, options.json, options.output)
    return 0


def _robustness(options: argparse.Namespace) -> int:
    from verifier.commands.robustness import robustness
    from verifier.reports.progress import progress_on_stderr
    from verifier.reports.robustness import curves_figure, write_curves, write_radii

    with progress_on_stderr("robustness") as progress:
        result = robustness(
            options.model,
            options.data,
            options.epsilon,
            estimators=options.estimators,
            method=options.method,
            alpha=options.alpha,
            levels=options.levels,
            solver=options.solver,
            **read_options(vars(options), progress),
        )
    assert result.records is not None
    folder = result.records.parent
    write_radii(result, folder / "radii.csv")
    write_curves(result, folder / "curves.csv")
    curves_figure(result, folder / "curves.png")
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.json:
        print(json.dumps(result.to_json(), allow_nan=False), file=options.output)
        return 0
    from rich.console import Console

    from verifier.reports.tables import robustness_table

    console = Console(file=options.output)
    console.print(robustness_table(result))
    _footer(console, result, f"records, radii.csv, curves.csv, curves.png in {folder}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from verifier.commands.compare import compare
    from verifier.reports.compare import brackets_figure, comparison_table, tightness_figure, write_comparison
    from verifier.reports.progress import progress_on_stderr

    with progress_on_stderr("compare") as progress:
        result = compare(
            options.model,
            options.data,
            options.epsilon,
            methods=options.methods,
            **read_options(vars(options), progress),
        )
    assert result.records is not None
    folder = result.records.parent
    write_comparison(result, folder / "comparison.csv")
    tightness_figure(result, folder / "tightness.png")
    brackets_figure(result, folder / "brackets.png")
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for index, prover, finder in result.violations:
        sentence = f"error: input {index}: {prover} proves safe what {finder} breaks; please report"
        print(f"{sentence}, it is saved in {folder}", file=sys.stderr)
    if options.json:
        print(json.dumps(result.to_json(), allow_nan=False), file=options.output)
    else:
        from rich.console import Console

        console = Console(file=options.output)
        console.print(comparison_table(result))
        for name, reason in result.left_out.items():
            console.print(f"left out: {name}: {reason}", soft_wrap=True)
        _footer(console, result, f"records, comparison.csv, two figures in {folder}")
    return EXIT_CONTRADICTION if result.violations else 0


def _report_attack(result: AttackResult, as_json: bool, output: TextIO) -> None:
    """Print the result; write the picture beside the records."""
    from verifier.reports.attack import adversarial_figure

    assert result.records is not None
    picture = result.records.parent / "adversarial.png"
    drawn = adversarial_figure(result, picture)
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False), file=output)
        return
    from rich.console import Console

    from verifier.reports.tables import attack_table

    console = Console(file=output)
    console.print(attack_table(result))
    beside = f", picture in {picture}" if drawn else ""
    _footer(console, result, f"examples in {result.adversarial}{beside}")


def _report(result: CertifyResult, as_json: bool, output: TextIO) -> None:
    """Print the result; write the figure beside the records."""
    from verifier.reports.certify import accuracy_figure

    assert result.records is not None
    figure = result.records.parent / "accuracy.png"
    epsilons = [row.epsilon for row in result.results]
    accuracy_figure(list(result.brackets.values()), result.inputs, epsilons, figure, result.model)
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False), file=output)
        return
    from rich.console import Console

    from verifier.reports.tables import certification_table

    console = Console(file=output)
    console.print(certification_table(result))
    _footer(console, result, f"records in {result.records}, figure in {figure}")


def _footer(
    console: Console, result: AttackResult | CertifyResult | CompareResult | RobustnessResult, text: str
) -> None:
    """Print how the data were read, how long it took, and where the rest lies."""
    console.print(f"data: {result.data}\n{result.seconds:.1f} s; {text}", soft_wrap=True, markup=False)


def _show(options: argparse.Namespace) -> int:
    from rich.console import Console

    from verifier.reports.tables import network_table
    from verifier.subject import open_model

    network, metadata = open_model(options.model)
    console = Console(file=options.output)
    console.print(network_table(network))
    console.print(
        f"{network.parameter_count:,} weights, input {network.dtype}, digest {network.digest}", soft_wrap=True
    )
    for key, value in metadata.items():
        console.print(f"{key}: {value}", soft_wrap=True)
    return 0
