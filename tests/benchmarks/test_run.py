"""The program that runs families of VNN-COMP, with a verifier that answers what the property file tells it to."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.programs import preloaded

RUN = REPOSITORY / "benchmarks" / "vnncomp" / "run.py"
# The property file holds Python: what the answer is, and what else happens.
VERIFIER = """
import json, pathlib, sys, time
verb, arguments = sys.argv[1], sys.argv[2:]
with open(sys.argv[0] + ".log", "a") as log:
    print(verb, *arguments, file=log)
if verb == "check":
    refused = pathlib.Path(arguments[0], "refused").exists()
    answer = {"seconds": 0.25, "leaves": 120, "without": {}, "uncertified": 0, "refused": [[0, "no"]] * refused}
    print(json.dumps(answer))
    sys.exit(2 * refused)
run = pathlib.Path(arguments[arguments.index("--out") + 1])
(run / "certificates").mkdir(parents=True)
(run / "certificates" / "0.npz").write_bytes(b"12345")
verdict = "unsat"
exec(pathlib.Path(arguments[1]).read_text())
entry = {"verdict": verdict, "seconds": 5.0, "method": "fake", "reason": None}
print(json.dumps({"properties": [entry]}))
"""


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """Return a folder that a test fills with instances, beside the verifier."""
    (tmp_path / "fake.py").write_text(VERIFIER)
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "net.onnx").touch()
    return folder


def filled(family: Path, **instances: tuple[str, str]) -> list[str]:
    """Write instances, each (what happens, the expected verdict); return the command that runs them."""
    with (family / "instances.csv").open("w") as listed, (family / "expected.csv").open("w") as expected:
        print("onnx,vnnlib,expected,fastest_tool_s", file=expected)
        for name, (program, verdict) in instances.items():
            (family / f"{name}.vnnlib").write_text(program)
            print(f"net.onnx,{name}.vnnlib,60", file=listed)
            print(f"net.onnx,{name}.vnnlib,{verdict},2.0", file=expected)
    fake = f"{sys.executable} {family.parent / 'fake.py'}"
    return [str(family), "--verifier", fake, "--out", str(family.parent / "rows.csv")]


def rows(family: Path) -> list[dict[str, str]]:
    with (family.parent / "rows.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def asked(family: Path) -> list[str]:
    """Return what the verifier was asked, in order."""
    return (family.parent / "fake.py.log").read_text().splitlines()


def started(command: list[str]) -> preloaded.Started:
    code = f"import runpy, sys; sys.path.insert(0, {str(RUN.parent)!r}); "
    return preloaded.start(code + f"runpy.run_path({str(RUN)!r}, run_name='__main__')", command)


def done(command: list[str]) -> subprocess.CompletedProcess[str]:
    return started(command).ended()


def test_a_verdict_that_contradicts_the_expected_one_is_shouted(family):
    ended = done(filled(family, right=("", "unsat"), wrong=("verdict = 'sat'", "unsat"), open=("", "unknown")))
    assert ended.returncode == 1
    assert "WRONG: small net.onnx wrong.vnnlib: sat, expected unsat" in ended.stderr
    assert [row["verdict"] for row in rows(family)] == ["unsat", "sat", "unsat"]
    # instances, decided, sat, unsat, wrong
    assert "| small | 3 | 3 | 1 | 2 | 1 |" in ended.stdout
    assert (family.parent / "rows.png").read_bytes().startswith(b"\x89PNG")


def test_time_is_that_of_the_whole_process_and_a_late_verdict_is_none(family):
    programs = {
        "late": ("try:\n    time.sleep(20)\nexcept KeyboardInterrupt:\n    pass", "unsat"),
        "failing": ("sys.exit('no such op')", "unsat"),
        "hungry": (
            "x = b'x' * (300 << 20); t = time.process_time()\nwhile time.process_time() < t + .3: pass",
            "unsat",
        ),
    }
    ended = done([*filled(family, **programs), "--limit", "6"])
    late, failing, hungry = rows(family)
    assert ended.returncode == 0 and "| small | 3 | 1 | 0 | 1 | 0 | 0 | 1 | 1 |" in ended.stdout
    assert late["verdict"] == "timeout" and 6 <= float(late["wall"]) < 16
    assert failing["verdict"] == "error" and "no such op" in failing["remark"]
    assert float(hungry["cpu"]) >= 0.3 and float(hungry["peak"]) > 300
    # 5 s were claimed for the property alone.
    assert 0.3 < float(hungry["wall"]) < 6 and hungry["solving"] == "5.0"


def test_a_run_goes_on_where_it_was_stopped(family):
    command = filled(family, a=("", "unsat"), b=("verdict = 'sat'", "sat"), c=("", "unsat"), d=("", "unsat"))
    assert done([*command, "--every", "2"]).returncode == 0
    whole = (family.parent / "rows.csv").read_bytes()
    first, second = rows(family)
    assert (first["vnnlib"], second["vnnlib"]) == ("a.vnnlib", "c.vnnlib")
    # A row that was being written when the machine stopped.
    (family.parent / "rows.csv").write_bytes(whole + whole.splitlines()[-1][:20])
    ended = done(command)
    assert (family.parent / "rows.csv").read_bytes().startswith(whole)
    assert [row["vnnlib"][0] for row in rows(family)] == ["a", "c", "b", "d"] and len(asked(family)) == 4
    again = done(command)
    assert again.stdout == ended.stdout and len(asked(family)) == 4
    refused = done([*command, "--limit", "7"])
    assert refused.returncode == 2 and "other settings" in refused.stderr


def test_an_interruption_leaves_what_is_known(family):
    command = filled(family, quick=("", "unsat"), endless=("time.sleep(100)", "unsat"))
    process = started(command)
    while not (family.parent / "fake.py.log").exists() or len(asked(family)) < 2:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    ended = process.ended()
    assert ended.returncode == 130 and "goes on from here" in ended.stderr
    assert [row["vnnlib"] for row in rows(family)] == ["quick.vnnlib"] and "1 of 2 instances" in ended.stdout


def test_certificates_are_checked_apart(family):
    refused = ("(run / 'refused').touch()", "unsat")
    ended = done([*filled(family, good=("", "unsat"), bad=refused), "--certificates"])
    good, bad = rows(family)
    assert (good["check"], good["leaves"], good["bytes"], good["checking"]) == ("ok", "120", "5", "0.25")
    assert "0.050 (0.050 from 100 leaves on)" in ended.stdout
    assert bad["check"] == "refused" and ended.returncode == 1 and "its run is refused" in ended.stderr


def test_peers_are_compared_where_both_decide(family, tmp_path):
    command = filled(family, a=("", "unsat"), b=("verdict = 'unknown'", "unsat"))
    peers = tmp_path / "peers.csv"
    lines = ["tool,family,onnx,vnnlib,seconds", "other,small,net.onnx,a.vnnlib,1000", "other,small,net.onnx,b.vnnlib,"]
    peers.write_text("\n".join(lines))
    ended = done([*command, "--peers", str(peers)])
    assert "| fastest of all: decided, ratio | other: decided, ratio |" in ended.stdout
    # a takes the other tool 1000 s, and the fastest of all 2 s; b is decided by the latter.
    assert re.search(r"\| 2, 0\.\d\d \| 1, 0\.00 \|$", ended.stdout.splitlines()[2])
    peers.write_text("tool,seconds\n")
    assert done([*command, "--peers", str(peers)]).returncode == 2
