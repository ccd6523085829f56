"""Einstein sums of one value and at most one constant: sums, transposes and one matrix product.

Letters that only the value has and the result lacks are summed; letters that both have and the result lacks are
contracted. Not covered: ellipses, letters twice in one operand, letters of the constant that are summed alone (whose
rounding is the runtime's choice) or that run along with the value's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from encoders.formats.graph import GraphBuilder, Value
from encoders.formats.reductions import sum_over
from encoders.ops import Affine


def einsum(
    graph: GraphBuilder, claim: Callable[[int], None], name: str, equation: str, operands: list[Value | Tensor]
) -> Value:
    """Return the sum of an equation such as `bi,ij->bj`. claim: is told the bytes of a weight before it is copied."""
    terms, result = _letters(equation)
    if [len(term) for term in terms] != [len(operand.shape) for operand in operands]:
        raise ValueError(f"equation {equation[:80]!r} does not fit {[tuple(operand.shape) for operand in operands]}")
    constants = [(term, given) for term, given in zip(terms, operands, strict=True) if isinstance(given, Tensor)]
    values = [(term, given) for term, given in zip(terms, operands, strict=True) if isinstance(given, Value)]
    if len(values) != 1 or len(constants) > 1:
        raise ValueError("supported: one computed value, and at most one constant")
    (letters, x), (term, weight) = values[0], constants[0] if constants else ("", None)
    alone = [axis for axis, letter in enumerate(letters) if letter not in result + term]
    if alone:
        x = sum_over(graph, f"{name}/sum", x, alone, False)
        letters = "".join(letter for letter in letters if letter in result + term)
    if weight is None:
        return graph.transpose(name, x, [letters.index(letter) for letter in result])
    contracted, new = [e for e in letters if e in term], [e for e in term if e not in letters]
    if any(letter in result for letter in contracted) or any(letter not in result for letter in new):
        raise ValueError(
            f"equation {equation[:80]!r}: letters of the constant must be contracted, or new in the result"
        )
    sizes = dict(zip(term, weight.shape, strict=True))
    if any(sizes[letter] != x.shape[letters.index(letter)] for letter in contracted):
        raise ValueError(f"equation {equation[:80]!r} does not fit {x.shape} and {tuple(weight.shape)}")
    kept = [letter for letter in letters if letter not in contracted]
    x = graph.transpose(f"{name}/last", x, [letters.index(letter) for letter in kept + contracted])
    lead = x.shape[: len(kept)]
    x = graph.reshape(f"{name}/rows", x, (*lead, math.prod(sizes[letter] for letter in contracted)))
    claim(weight.numel() * weight.element_size())
    matrix = weight.permute([term.index(letter) for letter in new + contracted])
    matrix = matrix.reshape(math.prod(sizes[letter] for letter in new), -1).contiguous()
    x = graph.emit(f"{name}/product", Affine(matrix), x)
    x = graph.reshape(f"{name}/wide", x, (*lead, *(sizes[letter] for letter in new)))
    return graph.transpose(name, x, [(kept + new).index(letter) for letter in result])


def _letters(equation: str) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; without an arrow these are all that stand alone, sorted."""
    text = "".join(equation.split())
    left, arrow, result = text.partition("->")
    terms = left.split(",")
    if not arrow:
        result = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    plain = all(letter.isascii() and letter.isalpha() for letter in "".join(terms) + result)
    if not plain or any(len(set(part)) < len(part) for part in [*terms, result]) or set(result) - set("".join(terms)):
        raise ValueError(f"equation {equation[:80]!r} is not supported; supported: letters, each once in an operand")
    return terms, result
