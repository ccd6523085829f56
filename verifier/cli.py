"""The command line: arguments in, one call, a table or JSON out. No logic.

argparse, because `--epsilon 0.05 0.1` takes several values after one option and because help must not wait for
heavier imports. Exit status: 0 a result was produced, 1 two methods contradict each other (a bug) or a claim of a run
does not hold, 2 the request cannot be carried out (for `show --supports`: the model cannot be read), 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from verifier.arguments import SHARING, parser, verb_arguments
from verifier.commands.request import read_options
from verifier.output import results_stream

EXIT_CONTRADICTION = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

# Commands that show no progress.
QUICK = ("show", "report", "export", "merge")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    commands = parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        commands.print_help()
        return 0
    options = commands.parse_args(arguments)
    try:
        # A program that is about to end leaves descriptor 1 turned away: libraries may print when they are unloaded.
        with results_stream(restore=arguments is not None) as options.output:
            return _present(_result(options), options)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues a run that has a folder", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if options.debug:
            raise
        print(f"verifier {options.command}: {error}", file=sys.stderr)
        return EXIT_REFUSED


def _result(options: argparse.Namespace) -> Any:
    """Call the function of the command's name with what was read; show its progress."""
    # Imported here: torch takes seconds to load and --help must not wait for it.
    with _loading():
        verb = getattr(import_module(f"verifier.commands.{options.command}"), options.command)
    if options.command in QUICK:
        return verb(**verb_arguments(options))
    from verifier.reports.progress import progress_on_stderr

    items = {"train": "batches", "verify": "boxes"}.get(options.command, "inputs")
    with progress_on_stderr(options.command, items) as progress:
        shared = read_options(vars(options), progress) if options.command in SHARING else {"progress": progress}
        if options.command == "verify":
            options.out, options.workers = options.out or "auto", options.workers or "auto"
        return verb(**verb_arguments(options), **shared)


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Collect no garbage while libraries load, and leave what they have made out of later collections.

    It lasts to the end of the program, and going through it takes a quarter of the time to a first verdict.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _present(result: Any, options: argparse.Namespace) -> int:
    """Write what the command's report keeps, print the result as a table or as JSON; return the exit status."""
    report = import_module(f"verifier.reports.{options.command}")
    records: Path | None = getattr(result, "records", None)
    files = report.write(result, records.parent) if records is not None else []
    for warning in getattr(result, "warnings", ()):
        print(f"warning: {warning}", file=sys.stderr)
    problems = list(report.problems(result)) if hasattr(report, "problems") else []
    for sentence in problems:
        print(sentence, file=sys.stderr)
    if getattr(options, "json", False):
        print(json.dumps(result.to_json(), allow_nan=False), file=options.output)
    else:
        from rich.console import Console

        console = Console(file=options.output)
        for renderable in report.shown(result):
            console.print(renderable, soft_wrap=isinstance(renderable, str), markup=False)
        if getattr(result, "classes", ""):
            console.print(f"classes: {result.classes}", soft_wrap=True, markup=False)
        if getattr(result, "about", ""):
            console.print(result.about, soft_wrap=True, markup=False)
        if records is not None:
            kept = ", ".join([records.name, *(file.name for file in files)])
            footer = f"data: {result.data}\n{result.seconds:.1f} s; {kept} in {records.parent}"
            console.print(footer, soft_wrap=True, markup=False)
    refused = bool(getattr(result, "refused", False))
    return EXIT_CONTRADICTION if problems else EXIT_REFUSED if refused else 0
