"""The exceptions of the readers and writers, and the checks that every file passes first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.formats.remedies import remedy

# Problems that one message lists; a file may have a hundred thousand.
LISTED_PROBLEMS = 50

# Characters of the line about one node.
LONGEST_PROBLEM = 600


class ModelFileError(ValueError):
    """A model or its file cannot be used; the message names the file, the node, the value and the remedy."""


class PropertyFileError(ValueError):
    """A file of properties cannot be used; the message names the file, the line, the token and the remedy."""


@dataclass(frozen=True)
class Problem:
    """A node of a file that cannot be read: its name, its operator as the format calls it, and what is wrong."""

    node: str
    operator: str
    reason: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return remedy(self.operator)

    def __str__(self) -> str:
        return f"node {self.node!r} ({self.operator}): {self.reason}"


class UnsupportedNodesError(ModelFileError):
    """A graph holds nodes that cannot be read: all of them, in `problems`."""

    def __init__(self, source: str, problems: Sequence[Problem], supported: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  {problem}"[:LONGEST_PROBLEM] for problem in problems[:LISTED_PROBLEMS])
        if len(problems) > LISTED_PROBLEMS:
            lines += f"\n  and {len(problems) - LISTED_PROBLEMS} more"
        # Overloads of one torch operator (aten.add.Tensor, aten.add.Scalar) are listed once.
        names = sorted({name.rsplit(".", 1)[0].removeprefix("aten.") for name in supported})
        super().__init__(
            f"{source}: the network cannot be read, {count}:\n{lines}\n"
            f"Supported operators: {', '.join(names)}. Export the model without the unsupported parts."
        )


def check_file(path: Path, refusal: type[ValueError] = ModelFileError) -> None:
    """Raise `refusal` unless `path` is a file with content."""
    if path.is_dir():
        raise refusal(f"{path}: is a directory, not a file")
    if not path.exists():
        raise refusal(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise refusal(f"{path}: the file is empty; export or download it again")
