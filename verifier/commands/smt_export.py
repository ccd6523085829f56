"""The certificates of a run as SMT-LIB 2, a file each: what `export --format smt-lib` writes.

Each is evaluated by `check`'s code first, and its record held against model and data, so that no text is written of
one that does not hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from encoders.files import write_atomically
from verifier.certificates.certificate import Certificate
from verifier.certificates.counterexample import ClaimError
from verifier.certificates.error import CertificateError
from verifier.certificates.files import CertificateFile, certificate_path, read_certificate
from verifier.certificates.smt_lib import smt_text
from verifier.commands.loaded_claims import claims_of
from verifier.pages.tables import Cell, Table
from verifier.runs.folder import RunError, StoredRun, read_run

COLUMNS = ("index", "leaves", "questions", "file", "reason")
QUESTION = "(check-sat)"


def write_proofs(run: Path, folder: Path) -> Table:
    """Return a row for each proof of a run: the file in a new folder, or the reason why it has none.

    Model and data are looked for where the run found them. Raises ValueError with what is wrong, and where no proof
    has a text.
    """
    stored = read_run(run)
    claims, texts = _claims(run, stored), dict[str, str]()
    rows, records = list[tuple[Cell, ...]](), dict[int, Any](stored.lines.records)
    for index, record in sorted(records.items()):
        if record.proved < 0:
            continue
        name, leaves, text = f"{index:09}.smt2", None, ""
        try:
            claims.check_record(index, record)
            leaves, question = claims.leaves(record), claims.exact_question(record)
            if question is None:
                raise CertificateError("it has no certificate")
            _, network, _ = question
            text = "\n".join(smt_text(_certificate(run, index, record.certificate), network)) + "\n"
        except (CertificateError, ClaimError) as error:
            rows.append((index, leaves, None, None, str(error)))
            continue
        texts[name] = text
        rows.append((index, leaves, text.count(QUESTION), name, None))
    if not texts:
        reason = f"; input {rows[0][0]}: {rows[0][-1]}" if rows else ""
        raise RunError(f"no proof of {run} can be written as SMT-LIB{reason}")
    folder.mkdir()
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return Table(COLUMNS, tuple(rows))


def _claims(run: Path, stored: StoredRun) -> Any:
    command = stored.configuration["command"]
    if command not in ("certify", "verify"):
        raise RunError(f"{run} is a run of {command}, which keeps no certificates; those of certify and verify do")
    return claims_of(run, stored)


def _certificate(run: Path, index: int, named: CertificateFile) -> Certificate:
    return read_certificate(certificate_path(run, named.file), named.sha256, index)
