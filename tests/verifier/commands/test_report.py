"""The page of a run: all that it must say is there, nothing of a run's text is code, and browsers agree."""

import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import Affine
from tests.networks.chains import chain
from verifier import certify, report, verify
from verifier.answers import Answer, Spent
from verifier.cli import main
from verifier.pages.tables import RunRecords
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.folder import open_run
from verifier.runs.records import InputHead
from verifier.verdict import Bracket

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"
BROWSERS = ("chromium", "google-chrome", "chromium-browser")
CONFIGURATION = {
    "command": "certify", "model": "a" * 64, "data": "b" * 64, "seed": 0, "clip": [0.0, 1.0], "norm": "inf",
    "method": f"auto {HOSTILE}",
}  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder of a real run."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    certify("digits-mwd", "digits", [0.05, 0.1], limit=60, out=folder)
    return folder


def made_run(folder, count, text=HOSTILE, asked=None):
    """Write a run of many inputs, every text of which is the given one; half of the inputs have a counterexample."""
    random = np.random.default_rng(0)
    records, witnesses = [], {}
    for index in range(count):
        prediction = int(random.integers(10))
        head = InputHead(
            index=index, model="a" * 64, seconds=0.01, versions={"torch": text}, label=index % 10,
            prediction=index % 10 if random.random() < 0.95 else (index + 1 + prediction % 9) % 10, data="b" * 64,
        )  # fmt: skip
        if not head.correct:
            records.append(CertifyRecord(head=head))
            continue
        lower = float(random.random() * 0.1)
        upper = lower + 0.01 if index % 2 else math.inf
        bracket = Bracket(lower, upper, "interval", text if index % 2 else "")
        spent = (Spent("interval", 0.01, "proved"), Spent(text, 0.02, "nothing"))
        record = CertifyRecord(
            head=head, answer=Answer(bracket), tried=(0.03, 0.08), reason=f"{text} {index % 30}", spent=spent
        )
        records.append(record)
        if index % 2:
            witnesses[index] = (random.random((1, 6, 6)).astype(np.float32), upper)
    with open_run(
        folder, CONFIGURATION | (asked or {}), {"model": f"/nowhere/{text}.onnx", "data": f"/nowhere/{text}.npz"}
    ) as run:
        run.append(records, witnesses)
        run.finish({"model": text, "results": [{"epsilon": 0.03}, {"epsilon": 0.08}], "warnings": [text]})
    return folder


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if "script" not in self.open and "style" not in self.open:
            self.text.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_page_says_what_the_run_says(digits, tmp_path):
    out = tmp_path / "page.html"
    result = report(digits, out)
    page = Elements(out.read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.text).split())
    summary = json.loads((digits / "results.json").read_text())
    assert (result.inputs, result.bytes) == (60, out.stat().st_size)
    for row in summary["results"]:
        low, high = row["certified_accuracy_ci95"]
        counts = [row[name] for name in ("certified", "falsified", "open", "trusted")]
        shares = f"{row['certified_accuracy']:.1%} {low:.1%} {high:.1%} {row['attack_accuracy']:.1%}"
        assert f"{row['epsilon']:g} {' '.join(map(str, counts))} {shares}" in " ".join(text.split())
    for words in ("within 0.05, 0.1 (inf-norm)", summary["digest"], "verifier check", "torch", "interval", "By class"):
        assert words in text
    # Pictures of original, counterexample and difference.
    assert len(page.named("img")) == 3 * min(10, sum(1 for _ in np.load(digits / "witnesses.npz")["index"]))
    tips = [attributes["data-tip"] for attributes in page.named("circle")]
    assert any(f"certified accuracy {summary['results'][0]['certified_accuracy']:.1%}" in tip for tip in tips)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "stay the same within 0.03, 0.08 (inf-norm)?"),
        ({"arithmetic": "float32", "radius": 0.08}, "(inf-norm), in every execution in float32?"),
        ({"randomised": "mean"}, "Everything here is about the mean of the randomised network"),
        ({"draws_within": 4.0}, "Certified: every draw of the randomised network"),
    ],
)
def test_a_page_says_whose_executions_and_which_draws_are_meant(asked, words, tmp_path):
    report(made_run(tmp_path / "run", 4, "plain", asked), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert words in text and ("randomised network" in text) == ("randomised network" in words)


def test_a_page_about_properties_says_what_a_row_means(tmp_path):
    network = chain((1,), Affine(torch.tensor([[1.0]])))
    write_network(network, tmp_path / "model.safetensors")
    for name, limit in (("holds", 2), ("fails", 0.5)):
        box = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))"
        (tmp_path / f"{name}.vnnlib").write_text(f"{box}(assert (>= Y_0 {limit}))")
    properties = [tmp_path / f"{name}.vnnlib" for name in ("holds", "fails")]
    verify(tmp_path / "model.safetensors", properties, out=tmp_path / "run")
    report(tmp_path / "run", tmp_path / "page.html")
    text = " ".join(" ".join(Elements((tmp_path / "page.html").read_text(encoding="utf-8")).text).split())
    for words in ("A row is a box of a property", "(unsat)", "(sat)", "open Nothing.", "2 boxes of the properties"):
        assert words in text
    assert "at 0" not in text and "distance 0" not in text and "inputs; shares" not in text


def test_a_page_loads_nothing_and_is_accessible(digits, tmp_path):
    out = tmp_path / "page.html"
    report([digits, digits], out, title="Two")
    text = out.read_text(encoding="utf-8")
    page = Elements(text)
    # The namespace of SVG in HTML needs no address; nothing else may name one.
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    assert not page.named("link") and not page.named("iframe")
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in page.named("img"))
    assert all(attributes.get("alt") for attributes in page.named("img"))
    assert page.named("html") == [{"lang": "en"}] and len(page.named("h1")) == 1
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in page.named("svg"))
    assert all(attributes.get("scope") for attributes in page.named("th"))
    assert all(attributes.get("tabindex") == "0" and attributes["aria-label"] for attributes in page.named("circle"))
    assert "@media print" in text


def test_no_text_of_a_run_is_code_and_ten_thousand_inputs_are_small(tmp_path):
    out = tmp_path / "page.html"
    result = report(made_run(tmp_path / "run", 2_000), out)
    text = out.read_text(encoding="utf-8")
    page = Elements(text)
    scripts = page.named("script")
    assert scripts == [{"type": "application/json"}, {}]
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert HOSTILE in "".join(page.text)
    # A line of the table of inputs takes less than 60 bytes, the rest does not grow.
    small = report(made_run(tmp_path / "small", 200), tmp_path / "small.html").bytes
    assert (result.bytes - small) / 1_800 < 60


def test_a_run_that_is_not_finished_or_damaged_says_so(digits, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(digits, folder)
    (folder / "results.json").unlink()
    lines = (folder / "records.jsonl").read_text().splitlines(keepends=True)
    (folder / "records.jsonl").write_text("".join(lines[:30]) + re.sub('"correct": [a-z]+', '"correct": 1', lines[30]))
    report(folder, tmp_path / "page.html")
    text = "".join(Elements((tmp_path / "page.html").read_text(encoding="utf-8")).text)
    assert "The run is not finished" in text and "of records.jsonl are no records" in text


def test_what_is_no_run_and_what_is_no_page_is_refused(digits, tmp_path, capsys):
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "empty").mkdir()
    run, page = str(digits), str(tmp_path / "page.html")
    for arguments, words in (
        (["report", str(tmp_path / "nowhere"), "--out", page], "holds no run"),
        (["report", str(tmp_path / "empty"), "--out", page], "holds no run"),
        (["report", run, "--out", str(tmp_path)], "is a folder"),
        (["report", run, "--out", str(tmp_path / "mine.html")], "exists and is no page"),
        (["report", run, "--out", str(tmp_path / "no" / "page.html")], "there is no folder"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert main(["report", run, "--out", page]) == 0 and main(["report", run, "--out", page]) == 0


def test_radii_of_a_run_are_those_last_asked_about_or_all_that_were_tried():
    class Tried:
        tried = (0.1, 0.2)

    configuration = {"command": "certify"}
    asked = RunRecords(configuration, [Tried()], {"results": [{"epsilon": 0.3}, {"epsilon": "x"}, 5]})
    assert asked.epsilons == (0.3,)
    assert RunRecords(configuration, [Tried()], {}).epsilons == (0.1, 0.2)


def test_a_browser_opens_sorts_and_filters_without_an_error(digits, tmp_path):
    """Skipped without playwright and a Chromium of the system."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    out = tmp_path / "page.html"
    report([digits, made_run(tmp_path / "run", 200)], out)
    said = []
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: None if request.url.startswith("file:") else said.append(request.url[:40]))
        page.goto(out.as_uri())
        inputs = page.locator("[data-inputs]").first
        assert inputs.locator("[role=status]").inner_text().startswith("60 of 60")
        inputs.locator("th button").nth(4).click()
        lowest = [float(text) for text in inputs.locator("tbody td:nth-child(5)").all_inner_texts()]
        assert lowest == sorted(lowest)
        inputs.locator("select").select_option("falsified")
        assert set(inputs.locator("tbody td:nth-child(4)").all_inner_texts()) == {"falsified"}
        inputs.locator("input").fill("nothing like this")
        assert inputs.locator("[role=status]").inner_text().startswith("0 of 60")
        page.locator("circle").first.focus()
        assert "attack accuracy" in page.locator("#tip").inner_text()
        opened.close()
    assert [words for words in said if not words.startswith("data:")] == []
