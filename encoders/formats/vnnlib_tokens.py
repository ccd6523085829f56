"""Text of a VNN-LIB file as tokens that know their line, and its numbers as fractions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from encoders.formats.errors import PropertyFileError
from encoders.limits import Limits

# A comment, or in the group: a bracket, a string, a word, or a quotation mark that nothing closes.
_TOKEN = re.compile(r';[^\n]*|([()\[\],]|"[^"\n]*"|[^\s()\[\],;"]+|")')
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")
_WHOLE = re.compile(r"[0-9]{1,18}")

# Beyond these a number is refused: nobody means it, and its fraction would fill the memory.
MOST_CHARACTERS = 1_000
MOST_EXPONENT = 1_000

SHOWN_CHARACTERS = 60


class Token(NamedTuple):
    """A piece of the text, and where it starts."""

    text: str
    offset: int


@dataclass(frozen=True)
class Source:
    """The text of a file. limits: what it may ask for."""

    path: Path
    text: str
    limits: Limits

    def tokens(self) -> Iterator[Token]:
        """Yield the tokens, without comments; raise LimitError behind the last one that is allowed."""
        allowed = self.limits.tokens
        for count, match in enumerate(_TOKEN.finditer(self.text)):
            if count >= allowed:
                # Only the whole file says how many there are.
                self.limits.check("tokens", sum(1 for _ in _TOKEN.finditer(self.text)), "the text")
            if match[1] is not None:
                yield Token(match[1], match.start())

    def line(self, token: Token) -> int:
        """Return the line of a token, the first being 1."""
        return self.text.count("\n", 0, token.offset) + 1

    def refusal(self, token: Token, message: str) -> PropertyFileError:
        """Return the error that names file, line and token."""
        text = token.text if len(token.text) <= SHOWN_CHARACTERS else token.text[:SHOWN_CHARACTERS] + "..."
        return PropertyFileError(f"{self.path}, line {self.line(token)}, at {text!r}: {message}")

    def number(self, token: Token) -> Fraction | None:
        """Return the number that a token writes, exactly; None if it is none. Raises for one out of any reason."""
        match = _NUMBER.fullmatch(token.text, 0, MOST_CHARACTERS)
        if len(token.text) > MOST_CHARACTERS and _NUMBER.match(token.text):
            raise self.refusal(token, f"a number of {len(token.text):,} characters; supported: {MOST_CHARACTERS:,}")
        if match is None:
            return None
        if match[1] is not None and not -MOST_EXPONENT <= int(match[1]) <= MOST_EXPONENT:
            raise self.refusal(token, f"an exponent outside -{MOST_EXPONENT} to {MOST_EXPONENT}; check the number")
        return Fraction(token.text)

    def whole(self, token: Token, what: str) -> int:
        """Return the whole number that a token writes; refuse any other token, naming what should stand there."""
        if not _WHOLE.fullmatch(token.text):
            raise self.refusal(token, f"{what} must be a whole number")
        return int(token.text)
