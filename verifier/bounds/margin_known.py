"""What a search that has not ended knows of the margin, in words."""

import math


def margin_known(least: float, proved: bool = True) -> str:
    """Return words to go on with: the margin is nowhere below a number, written with three digits and not above it.

    least: the least lower bound of what is open; the rest is above zero. Where it is not a proof the words say so.
    Empty where nothing is known.
    """
    if not math.isfinite(least):
        return ""
    # Down by what the last subtraction may have rounded up.
    bound = math.nextafter(min(least, 0.0), -math.inf) if least <= 0.0 else 0.0
    size = 10.0 ** (math.floor(math.log10(-bound)) - 2) if bound < 0 else 1.0
    text = f"{bound:.3g}"
    while float(text) > bound:
        text = f"{float(text) - size:.3g}"
    return f", the margin is at least {text}{'' if proved else ' in float32'}"
