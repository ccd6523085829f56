"""The claims of a run, checked again: certificates are evaluated, witnesses replayed, counts made again.

`check` imports no solver and no code that finds bounds: it needs the model, the data, and `verifier.certificates`. What
it believes it computes: whether a proof could have a certificate follows from the network and the norm, and one that
could and has none is refused, whatever its record says. A proof that can have none is counted apart, never as checked.
A finished run has one record for each input, one witness for each claim of one, and a results.json that says what its
records say; a run that was stopped may be further on than its records.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Unpack

from verifier.certificates.counterexample import ClaimError
from verifier.certificates.error import CertificateError
from verifier.certificates.exactly import ExactChecker
from verifier.commands.claims import MALFORMED
from verifier.commands.loaded_claims import Places, claims_of
from verifier.fields import shown
from verifier.runs.folder import RunError, StoredRun, read_run
from verifier.runs.kept_certificate import KeptCertificate
from verifier.runs.manifest import manifest_faults
from verifier.runs.records import SCHEMA, Record
from verifier.summaries.results_file import differences
from verifier.threads import threads_for

# The place of what is refused of the run as a whole among what is refused of its inputs.
WHOLE = -1
# The reason of a proof without a certificate for which there is none.
COULD_HAVE_ONE = "a proof about this network can have one"
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What `check` returns.

    run, model: the folder, and the name of the model.
    inputs: of which the run has records.
    certified: inputs of which the run proves something.
    checked: those whose certificate holds, with `leaves` in all.
    without: how many proofs have none, by the reason.
    witnesses: how many were replayed.
    refused: (input, what does not hold), with -1 for the run as a whole; uncertified inputs are among them unless they
    were allowed.
    uncertified: proofs without a certificate that could have one.
    trusted: inputs for which a solver vouches beyond what is proved.
    exact, exact_leaves: certificates that hold in exact arithmetic, too, and their leaves. undecided: how many that
    arithmetic does not decide, by the reason. given_exactly: how many it was given in all; None where it was not asked.
    """

    run: str
    model: str
    inputs: int
    certified: int
    checked: int
    leaves: int
    without: Mapping[str, int]
    witnesses: int
    refused: tuple[tuple[int, str], ...]
    seconds: float
    uncertified: int = 0
    trusted: int = 0
    exact: int = 0
    exact_leaves: int = 0
    undecided: Mapping[str, int] = dataclasses.field(default_factory=dict)
    given_exactly: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        fields = dataclasses.asdict(self)
        return {"schema": SCHEMA, "command": "check", **fields, "refused": [list(pair) for pair in self.refused]}


def check(
    run: str | Path,
    *,
    allow_uncertified: bool = False,
    exact: float = 0,
    time_limit: float | None = None,
    progress: Progress | None = None,
    **options: Unpack[Places],
) -> CheckResult:
    """Return which claims of a run folder hold: nothing in it is changed, and everything in it is untrusted.

    options: `Places`, where model and data are now.
    allow_uncertified: count proofs that could have a certificate and have none, but do not refuse them.
    exact: how many certificates that hold, drawn at random, to evaluate in exact arithmetic, too; infinity for all.
    time_limit: seconds for each of these; what takes longer is not decided. progress: called with (done, in all) of
    inputs, then of these, too.

    Certificates are evaluated in outward-rounded float64. Raises ValueError with what is wrong before any work starts.
    """
    started = time.perf_counter()
    if not (exact >= 0 and (time_limit is None or time_limit > 0)):
        raise ValueError(f"{exact} certificates, {time_limit} s each: exact arithmetic takes at least 0, and some time")
    if time_limit is not None and not exact:
        raise ValueError("a time limit is of exact arithmetic; ask for it with --exact or --sample, or leave it out")
    stored = read_run(Path(run))
    if not stored.lines.lines:
        raise RunError(f"{run} holds no records, so there is nothing to check; the command of the run makes them")
    claims = claims_of(Path(run), stored, **options)
    with threads_for(claims.subject.network.parameter_count):
        work = _Check(Path(run), stored, claims, allow_uncertified)
        work.check_records(progress)
        work.check_exactly(exact, time_limit, progress)
        work.check_witnesses()
        work.check_results()
        return work.result(str(run), time.perf_counter() - started)


@dataclasses.dataclass(eq=False)
class _Check:
    """What was found so far."""

    run: Path
    stored: StoredRun
    claims: Any
    allow_uncertified: bool
    refused: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    without: dict[str, int] = dataclasses.field(default_factory=dict)
    certified: int = 0
    checked: int = 0
    leaves: int = 0
    uncertified: int = 0
    trusted: int = 0
    held: list[int] = dataclasses.field(default_factory=list)
    exact: int = 0
    exact_leaves: int = 0
    undecided: dict[str, int] = dataclasses.field(default_factory=dict)
    given_exactly: int | None = None

    def check_records(self, progress: Progress | None) -> None:
        """Check each line, each record, and the certificate of each proof."""
        lines = self.stored.lines
        for fault in lines.faults:
            self.refused.append((WHOLE if fault.index is None else fault.index, f"line {fault.line}: {fault.reason}"))
        if self.stored.results is not None:
            for index, numbers in lines.repeated.items():
                places = ", ".join(map(str, numbers))
                self.refused.append((index, f"it has several records in a run that is finished, lines {places}"))
        for number, (index, record) in enumerate(sorted(lines.records.items())):
            try:
                self._check_record(index, record)
            except (CertificateError, ClaimError) as error:
                self.refused.append((index, str(error)))
            except MALFORMED as error:
                self.refused.append((index, f"it cannot be checked: {type(error).__name__} {error}"))
            if progress is not None:
                progress(number + 1, len(lines.records))

    def _check_record(self, index: int, record: Record) -> None:
        self.claims.check_record(index, record)
        self._check_claim(index, record)
        self.trusted += record.vouched > record.proved
        if record.proved < 0:
            return
        self.certified += 1
        leaves = self.claims.leaves(record)
        if leaves is not None:
            self.checked, self.leaves = self.checked + 1, self.leaves + leaves
            if getattr(record, "certificate", None) is not None:
                self.held.append(index)
            return
        refusal = self.claims.certificate_refusal(record)
        reason = refusal or COULD_HAVE_ONE
        self.without[reason] = self.without.get(reason, 0) + 1
        if refusal is None:
            self.uncertified += 1
            if not self.allow_uncertified:
                said = record.no_certificate if isinstance(record, KeptCertificate) else None
                missing = _missing_certificate(self.stored)
                raise CertificateError(missing + (f" (the run says: {shown(said)})" if said else ""))

    def check_exactly(self, most: float, seconds: float | None, progress: Progress | None) -> None:
        """Have so many certificates that hold evaluated in exact arithmetic, if any are asked for."""
        if not most:
            return
        checker, chosen = ExactChecker(), self.held
        if most < len(chosen):
            chosen = sorted(random.Random(0).sample(chosen, int(most)))
        self.given_exactly = len(chosen)
        records = len(self.stored.lines.records)
        for number, index in enumerate(chosen, start=records):
            if progress is not None:
                progress(number, records + len(chosen))
            question = self.claims.exact_question(self.stored.lines.records[index])
            assert question is not None
            content, network, asked = question
            try:
                found = checker.leaves(content, network, asked, seconds)
            except CertificateError as error:
                self.refused.append((index, f"{error}; `check` accepts it: please report this with the run"))
                continue
            if isinstance(found, str):
                self.undecided[found] = self.undecided.get(found, 0) + 1
            else:
                self.exact, self.exact_leaves = self.exact + 1, self.exact_leaves + found

    def _check_claim(self, index: int, record: Record) -> None:
        """Raise ClaimError unless there is the witness that a record claims; it is replayed with the others."""
        claim, witness = record.claimed_distance, self.stored.witnesses.get(index)
        if claim is None:
            return
        if witness is None:
            raise ClaimError(f"there is no witness within {claim!r}, which the record claims")
        # While a run goes on, witnesses are written before the records that speak of them.
        if witness[1] != claim and not (self.stored.results is None and witness[1] < claim):
            raise ClaimError(f"its witness lies at distance {witness[1]!r}, the record claims {claim!r}")

    def check_witnesses(self) -> None:
        """Replay each witness."""
        for index, (point, distance) in sorted(self.stored.witnesses.items()):
            record = self.stored.lines.records.get(index)
            # Of a line that is refused nothing more is said; a run that was stopped may be ahead of its records.
            if record is None and (index in self.stored.lines.lines or self.stored.results is None):
                continue
            try:
                self.claims.check_witness(index, record, point, distance)
                self._check_contradiction(record, distance)
            except (CertificateError, ClaimError) as error:
                self.refused.append((index, f"witness: {error}"))
            except MALFORMED as error:
                self.refused.append((index, f"witness: malformed: {type(error).__name__} {error}"))

    def _check_contradiction(self, record: Record | None, distance: float) -> None:
        """Raise ClaimError where a record is silent on a witness that holds, or says that there is none so near."""
        if record is None:
            return
        safe = record.vouched
        if safe >= distance:
            raise ClaimError(f"it lies at distance {distance!r}, within radius {safe!r}, which counts as safe")
        if self.stored.results is not None and record.claimed_distance is None:
            raise ClaimError(f"it lies at distance {distance!r}, and the record claims none")

    def check_results(self) -> None:
        """Compare the summary with the records."""
        results = self.stored.results
        self.refused += [(WHOLE, sentence) for sentence in manifest_faults(self.run, self.stored)]
        if isinstance(results, str):
            self.refused.append((WHOLE, f"results.json cannot be read: {results}"))
        elif results is not None:
            sentences = differences(results, self.stored.lines.records, self.stored.configuration)
            sentences += self.claims.differences(results, self.stored.witnesses)
            self.refused += [(WHOLE, f"results.json is not what the records say: {sentence}") for sentence in sentences]

    def result(self, run: str, seconds: float) -> CheckResult:
        """Return all of it."""
        return CheckResult(
            run, self.claims.subject.name, len(self.stored.lines.lines), self.certified, self.checked, self.leaves,
            self.without, len(self.stored.witnesses), tuple(sorted(self.refused)), seconds, self.uncertified,
            self.trusted, self.exact, self.exact_leaves, self.undecided, self.given_exactly,
        )  # fmt: skip


def _missing_certificate(stored: StoredRun) -> str:
    """Return what is wrong with a proof that could have a certificate, and what to do."""
    command = stored.configuration["command"]
    records = stored.lines.records.values()
    if stored.results is None and any(isinstance(r, KeptCertificate) and r.says_of_certificate for r in records):
        return "no certificate yet: the run was stopped before it made this one; give its command again"
    ways = "give the command of the run again with --certificates, or accept its word with --allow-uncertified"
    if command not in ("certify", "verify"):
        ways = f"{command} keeps none: prove it by `verifier certify --certificates`, or accept --allow-uncertified"
    return f"no certificate, though {COULD_HAVE_ONE}; {ways}"
