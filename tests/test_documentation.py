"""What the documents say of the code: tables, names, links, and the map of modules."""

import re
from pathlib import Path

import pytest

from encoders.ops import OPS
from tests.conftest import REPOSITORY

# The README is a tour; whatever is longer stands behind it.
README_LINES = 150
LINE = 120
# Documents that also speak of what was.
HISTORY = ("CHANGELOG.md", "RESULTS.md", "REPRODUCTION.md")
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "benchmarks/*.md")
    for path in REPOSITORY.glob(pattern)
)


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_the_readme_is_short():
    assert len(read("README.md").splitlines()) <= README_LINES


def test_the_table_of_ops_and_views_is_that_of_the_code():
    from verifier.reports.show import view_table

    words = "regenerate the table: python -m verifier.reports.show"
    assert f"{view_table()}\n" in read("docs/guide/methods.md"), words
    assert len(OPS) + 2 == view_table().count("\n") + 1


def test_every_method_and_attack_is_documented():
    from verifier.attacks import ATTACKS
    from verifier.methods import METHODS

    for names, guide in ((METHODS, "docs/guide/methods.md"), (ATTACKS, "docs/guide/attacks.md")):
        text = read(guide)
        for name in names:
            assert f"`{name}`" in text, f"{guide} does not name {name}"


def anchors(text: str) -> set[str]:
    """Return the anchors that the headings of a document make."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_relative_link_leads_somewhere(document: Path):
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{target}: no such heading"


def test_lines_of_documents_fit_a_screen():
    """But for tables, code, and the two that only grow."""
    for document in DOCUMENTS:
        if document.name in HISTORY[:2]:
            continue
        text = re.sub(r"^ *```.*?^ *```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        long = [line for line in text.splitlines() if len(line) > LINE and not line.startswith("|")]
        assert not long, f"{document}: more than {LINE} characters"


def test_the_format_names_every_field_of_a_record_and_of_a_run():
    from verifier.certificates.files import CertificateFile
    from verifier.fields import kinds_of
    from verifier.runs import kinds
    from verifier.runs.compare_record import MethodAnswer
    from verifier.runs.records import Head, InputHead
    from verifier.runs.robustness_record import StoredEstimate
    from verifier.runs.stored_answer import written_names

    classes = (Head, InputHead, *kinds.RECORDS.values(), CertificateFile, MethodAnswer, StoredEstimate)
    names = {name for each in classes for name in kinds_of(each)} | set(written_names())
    names |= {"estimators", "methods", *kinds.SETTINGS, *kinds.ORIGIN, "correct"}
    names |= {name for fields in kinds.COMMAND_SETTINGS.values() for name in fields}
    assert "execution_only" in names and "estimators" in names
    text = read("docs/format.md")
    assert not [name for name in sorted(names) if f"`{name}`" not in text]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_path_that_a_document_names_exists(document: Path):
    if document.name in HISTORY:
        return
    paths = re.findall(r"\b(?:encoders|verifier|tests|benchmarks|examples|docs)/[\w/.-]*", document.read_text("utf-8"))
    # Names in capitals stand for one's own.
    named = {path.rstrip(".") for path in paths if not re.search(r"[A-Z]{3}", path.removesuffix(".md"))}
    missing = sorted(path for path in named if not (REPOSITORY / path).exists())
    assert not missing


def test_every_module_stands_in_the_map_once():
    packages = (REPOSITORY / name for name in ("encoders", "verifier", "verifier_check"))
    modules = [path.relative_to(REPOSITORY).as_posix() for package in packages for path in package.rglob("*.py")]
    rows = [line.split(" | ") for line in read("docs/MAP.md").splitlines() if re.match(r"\| .*`", line)]
    assert all(len(row) == 4 for row in rows), "concept, file, source, test"
    assert all(re.fullmatch(r"`tests/.*\.py` \|", row[3]) for row in rows), "each names a test"
    mapped = sorted(row[1].strip("`") for row in rows)
    assert mapped == sorted(path for path in modules if not path.endswith("__init__.py"))
