"""What stands below a table: words that need to be explained, and what the stages of a method took."""

from collections.abc import Sequence

from verifier.summaries.spending import StageTotal

EXECUTION_ONLY = (
    "execution only: inputs, certified or open, with a point within epsilon that gets another class by the rounding of "
    "the model's execution alone"
)
TRUSTED = "safe by the word of a solver alone, which certifies nothing"


def counted(count: int, noun: str) -> str:
    """Return a number and what it counts: 1 proof, 2 proofs, 2 witnesses."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def spent_in_words(spent: Sequence[StageTotal]) -> str:
    """Return in a line what each stage took, and for how many inputs it proved or found something."""
    parts = []
    for total in spent:
        gains = [f"{n} {word}" for n, word in ((total.proved, "proved"), (total.found, "found")) if n]
        parts.append(f"{total.stage} {total.seconds:.2f} s" + (f" ({', '.join(gains)})" if gains else ""))
    return f"spent: {', '.join(parts)}"
