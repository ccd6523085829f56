"""Every example runs, and prints what its docstring promises."""

import importlib.util
import re
import sys

import pytest

from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
# By script: a pattern that what it prints holds.
PRINTED = {
    "attack_a_randomised_network": r"after 16 draws a step: \d",
    "certify_a_table": r"'approved' as 0, 'refused' as 1, .*fixed \(region\)(.|\n)*20 certificates hold, 0 claims",
    "certify_your_own_module": r"is safe within 0\.\d+ \(.*, checked\) and broken at 0\.\d+",
    "check_a_run": r" 0 claims refused\n.* 1 claims refused\n  input 0: .*the record claims radius 0\.04",
    "slurm_array": r"\d+ of \d+ inputs certified at 0.02, 0 claims refused",
    "write_a_method": r"norm-product: mean safe radius 0\.00\d+\n.*\ntogether: mean safe radius 0\.01",
    "write_an_op": r"views of clamp: evaluate, interval, envelope\n.*\nclass 1 is proved to win on the ball: True",
}


def run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script in this process, which has loaded torch already."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for the module that they stand in.
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    assert module.__doc__
    module.main()


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_runs_and_prints_what_it_promises(name, capfd, monkeypatch):
    run(name, monkeypatch)
    assert re.search(PRINTED[name], capfd.readouterr().out)


def test_every_example_is_run_and_listed():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == set(PRINTED)
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert not [name for name in names if f"({name}.py)" not in listed]
