"""Figures leave a caller's matplotlib as it is, and are never half-written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from verifier import attack, certify, compare, robustness
from verifier.reports import attack as attack_report
from verifier.reports import certify as certify_report
from verifier.reports import compare as compare_report
from verifier.reports import robustness as robustness_report

VERBS = ("certify", "attack", "robustness", "compare", "check", "train", "show", "report", "export")


def test_reports_choose_no_backend_and_load_no_pyplot():
    program = "import sys\n" + "".join(f"import verifier.reports.{verb}\n" for verb in VERBS)
    program += "import matplotlib\nprint('matplotlib.pyplot' in sys.modules, matplotlib.rcParams._get('backend'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    shown = done.stdout.split(maxsplit=1)
    assert shown[0] == "False" and "agg" not in shown[1].lower()


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_a_python_caller_writes_what_the_command_line_writes(tmp_path: Path, norm: str):
    shared = {"limit": 4, "norm": norm}
    certified = certify("digits-relu", "digits", [0.02], method="interval", **shared)
    attacked = attack("digits-relu", "digits", "fgsm", 0.1 if norm == "inf" else 2.0, **shared)
    results = [
        (certified, certify_report, {"accuracy.csv", "accuracy.png"}),
        (attacked, attack_report, {"adversarial.csv", "adversarial.png"}),
    ]
    if norm == "inf":
        measured = robustness("digits-relu", "digits", 0.05, estimators=["fgsm"], limit=4)
        compared = compare("digits-relu", "digits", 0.05, methods=["interval", "crown"], limit=4)
        results += [
            (measured, robustness_report, {"radii.csv", "curves.csv", "curves.png"}),
            (
                compared,
                compare_report,
                {"comparison.csv", "tightness.csv", "tightness.png", "brackets.csv", "brackets.png"},
            ),
        ]
    for result, report, names in results:
        written = report.write(result, tmp_path)
        assert {path.name for path in written} == names
        for path in written:
            content = path.read_bytes()
            assert content.startswith(b"\x89PNG") if path.suffix == ".png" else len(content.splitlines()) > 1
        assert list(report.shown(result))
        assert list(tmp_path.glob("*tmp*")) == []
    assert np.isfinite(certified.results[0].certified_accuracy)
