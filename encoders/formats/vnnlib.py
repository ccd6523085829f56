"""Reader of VNN-LIB files, 1.0 and 2.x: one pass over the tokens, every bracket reduced when it closes.

A file declares the inputs and outputs of one network or several and asserts formulas over them; a counterexample
satisfies all of them (VNN-LIB: Demarchi, Guidotti, Pulina, Tacchella 2023; www.vnnlib.org). What is read: and, or,
comparisons of any number of linear expressions, over inputs and outputs in any nesting and order. What is not: not,
products of variables, hidden nodes; each is refused by name. Nothing recurses, so depth costs no stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from encoders.formats.errors import PropertyFileError
from encoders.formats.gzip_file import decompress
from encoders.formats.vnnlib_formula import COMPARISONS, Formula, comparison, conjunction, disjunction
from encoders.formats.vnnlib_linear import ONE, ZERO, Linear, difference, product, total
from encoders.formats.vnnlib_property import properties_of
from encoders.formats.vnnlib_tokens import Source, Token
from encoders.formats.vnnlib_variables import Congruence, Index, Tensor, Variables
from encoders.limits import Limits
from encoders.property import Property

# What stands within brackets, reduced: names and numbers stay tokens until the operator around them asks.
Item = Token | Index | Linear | Formula | Tensor | Congruence

SUPPORTED = "supported: and, or, <=, >=, <, >, =, ==, != of linear expressions (+, -, * with constants)"
PUNCTUATION = frozenset('()[],"')
ARITHMETIC = ("+", "-", "*")
# Statements about the file, which say nothing of the property.
IGNORED = ("set-logic", "set-info")
UNSUPPORTED = {
    "not": "negation is not supported; turn the comparisons around",
    "=>": "implication is not supported; write it with or",
    "declare-hidden": "hidden nodes are not supported; supported: networks with one input and one output each",
}


def read_properties(path: Path, limits: Limits) -> tuple[Property, ...]:
    """Return the properties of a file, as `encoders.formats.read_property` says."""
    limits.check("text_bytes", path.stat().st_size, "the file")
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        content = decompress(path, content, limits, "file of properties", PropertyFileError)
    limits.check("text_bytes", len(content), "the text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PropertyFileError(f"{path}: not a text in UTF-8: byte {error.start} cannot be read") from None
    source = Source(path, text, limits)
    reader = _Reader(source, Variables(source))
    reader.read()
    return properties_of(reader.asserted, reader.variables, source)


@dataclass
class _Reader:
    """What has been read so far.

    asserted: the formulas of all assertions, which all hold at a counterexample.
    disjuncts: how many their conjunction expands to.
    open: the brackets that are not closed yet: where each opened, and its items.
    """

    source: Source
    variables: Variables
    asserted: list[Formula] = field(default_factory=list)
    disjuncts: int = 1
    open: list[tuple[Token, list[Item]]] = field(default_factory=list)

    def read(self) -> None:
        """Read the whole text."""
        index: list[Token] | None = None
        for token in self.source.tokens():
            if index is not None:
                if token.text == "]":
                    self.open[-1][1].append(self._index(index))
                    index = None
                else:
                    index.append(token)
            elif token.text not in PUNCTUATION and self.open:
                self.open[-1][1].append(token)
            elif token.text == "(":
                self.source.limits.check("nesting", len(self.open) + 1, "the text")
                self.open.append((token, []))
            elif not self.open:
                raise self.source.refusal(token, "stands outside of all brackets; remove it or open its bracket")
            elif token.text == ")":
                self._close()
            elif token.text == "[":
                index = [token]
            else:
                raise self.source.refusal(token, "is not expected here; check the brackets and quotation marks before")
        if index is not None or self.open:
            unclosed = index[0] if index else self.open[-1][0]
            raise self.source.refusal(unclosed, "the file ends before this bracket is closed; is the file complete?")

    def _close(self) -> None:
        opened, items = self.open.pop()
        if not items or not isinstance(items[0], Token):
            raise self.source.refusal(opened, f"brackets without an operator or command in front; {SUPPORTED}")
        head, rest = items[0], items[1:]
        if self.open:
            self.open[-1][1].append(self._reduced(head, rest))
        else:
            self._command(head, rest)

    def _command(self, head: Token, items: list[Item]) -> None:
        """Carry out a statement that stands outside of all others."""
        match head.text, items:
            case "assert", [Formula() as formula]:
                self.asserted.append(formula)
                self.disjuncts *= len(formula.disjuncts)
                self.source.limits.check("disjuncts", self.disjuncts, "the conjunction of all assertions")
            case "declare-const", [Token() as name, Token() as sort]:
                self.variables.declare_number(name, sort)
            case "declare-network", [Token() as name, *parts]:
                tensors = [part for part in parts if isinstance(part, Tensor)]
                congruences = [part for part in parts if isinstance(part, Congruence)]
                if len(tensors) + len(congruences) != len(parts):
                    known = "declare-input, declare-output, equal-to, isomorphic-to"
                    raise self.source.refusal(head, f"supported in a network: {known}")
                self.variables.declare_network(name, tensors, congruences)
            case "vnnlib-version", [Token() as version]:
                if not re.fullmatch(r"<[12]\.[0-9]{1,9}>", version.text):
                    raise self.source.refusal(version, "not a version that is supported; supported: <1.0> and <2.0>")
            case (("assert" | "declare-const" | "declare-network" | "vnnlib-version"), _):
                raise self.source.refusal(head, _USES[head.text])
            case name, _ if name not in IGNORED:
                known = "assert, declare-const, declare-network, vnnlib-version"
                raise self.source.refusal(head, UNSUPPORTED.get(name, f"unknown command; supported: {known}"))

    def _reduced(self, head: Token, items: list[Item]) -> Item:
        """Return what brackets within others stand for."""
        operator = head.text
        if operator in ("and", "or"):
            formulas = [item for item in items if isinstance(item, Formula)]
            if not items or len(formulas) != len(items):
                raise self.source.refusal(head, f"{operator} takes one formula or more, and nothing else; {SUPPORTED}")
            return (conjunction if operator == "and" else disjunction)(formulas, self.source)
        if operator in COMPARISONS:
            return comparison(self._expressions(head, items), self.source, head)
        if operator in ARITHMETIC:
            arguments = self._expressions(head, items)
            if operator == "*":
                return product(arguments, self.source, head)
            return total(arguments) if operator == "+" else difference(arguments)
        match operator, items:
            case (
                ("declare-input" | "declare-output"),
                [Token() as name, Token() as element, Index() as shape, *names],
            ):
                if len(names) <= 1 and all(isinstance(name, Token) and name.text[0] == '"' for name in names):
                    return self.variables.tensor(operator == "declare-input", name, element, shape)
            case (("equal-to" | "isomorphic-to"), [Token() as name]):
                return Congruence(operator == "equal-to", name)
        if operator in _USES:
            line = self.source.line(self.open[0][0])
            raise self.source.refusal(head, f"{_USES[operator]}; is the bracket of line {line} closed too late?")
        raise self.source.refusal(head, UNSUPPORTED.get(operator, f"unknown operator; {SUPPORTED}"))

    def _expressions(self, head: Token, items: list[Item]) -> list[Linear]:
        """Return the arguments of an operator on numbers; an index belongs to the name before it."""
        expressions: list[Linear] = []
        for place, item in enumerate(items):
            follower = items[place + 1] if place + 1 < len(items) else None
            if isinstance(item, Token):
                index = follower if isinstance(follower, Index) else None
                number = self.source.number(item) if index is None else None
                if number is not None:
                    expressions.append(Linear({}, number))
                else:
                    expressions.append(Linear({self.variables.resolve(item, index): ONE}, ZERO))
            elif isinstance(item, Linear):
                expressions.append(item)
            elif not isinstance(item, Index) or not place or not isinstance(items[place - 1], Token):
                raise self.source.refusal(head, f"{head.text} takes numbers, variables and sums of them; {SUPPORTED}")
        if not expressions:
            raise self.source.refusal(head, f"{head.text} without arguments")
        return expressions

    def _index(self, tokens: list[Token]) -> Index:
        """Return the numbers of square brackets; tokens: the opening bracket and all up to the closing one."""
        numbers = [self.source.whole(token, "a size or an index") for token in tokens[1::2]]
        wrong = next((token for token in tokens[2::2] if token.text != ","), None)
        if wrong is not None or (len(tokens) > 1 and len(tokens) % 2):
            raise self.source.refusal(wrong or tokens[-1], "supported in square brackets: whole numbers between commas")
        return Index(tuple(numbers), tokens[0])


_USES = {
    "assert": "stands outside of other brackets and takes one formula: (assert FORMULA); " + SUPPORTED,
    "declare-const": "stands outside of other brackets and takes a name and a sort: (declare-const X_0 Real)",
    "declare-network": "stands outside of other brackets: (declare-network NAME (declare-input X Real [1,5]) "
    "(declare-output Y Real [1,5]))",
    "vnnlib-version": "stands outside of other brackets and takes a version: (vnnlib-version <2.0>)",
    "equal-to": "stands in declare-network, after its name: (equal-to NAME)",
    "isomorphic-to": "stands in declare-network, after its name: (isomorphic-to NAME)",
    "declare-input": "stands in declare-network: (declare-input NAME Real [1,5])",
    "declare-output": "stands in declare-network: (declare-output NAME Real [1,5])",
}
