"""The log of a training beside its model: a line of CSV for each epoch, complete at any moment."""

import csv
import io
from pathlib import Path

from encoders.files import write_atomically
from verifier.training.history import History

COLUMNS = ("epoch", "learning_rate", "loss", "validation_score")


def write_log(path: Path, history: History) -> None:
    """Write the whole log anew; a run that is taken up again writes the same lines."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, values in enumerate(zip(history.rates, history.losses, history.scores, strict=True), start=1):
        writer.writerow([number, *(repr(value) for value in values)])
    write_atomically(path, text.getvalue().encode())
