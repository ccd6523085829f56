"""Check a run that somebody made: its certificates are evaluated again, its witnesses replayed in your model.

First somebody certifies six inputs and keeps the run. `check` needs the folder, the model and the data; it uses no
solver and none of the code that found the proofs. Then a record is altered to claim more, which is refused.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from verifier import CheckResult, certify, check


def shown(result: CheckResult) -> str:
    """Return a check in one line."""
    return (
        f"{result.certified} proofs, {result.checked} with certificates that hold ({result.leaves} leaves), "
        f"{result.witnesses} witnesses, {len(result.refused)} claims refused"
    )


def claim_more(records: Path) -> None:
    """Double the radius that the first record says is safe."""
    lines = records.read_text().splitlines()
    record = json.loads(lines[0])
    record["lower"] *= 2
    record["upper"] = None
    records.write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")


def main() -> None:
    """Print what a check says of a run before and after it was altered."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        certify("digits-relu", "digits", [0.02], method="exact", limit=6, out=run)
        print(shown(check(run)))
        claim_more(run / "records.jsonl")
        result = check(run)
        print(shown(result))
        for index, sentence in result.refused:
            print(f"  {'the run' if index < 0 else f'input {index}'}: {sentence}")


if __name__ == "__main__":
    main()
