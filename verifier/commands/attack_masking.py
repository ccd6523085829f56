"""Whether the gradients that an attack follows are masked: by what the network is, and signs after `auto`, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from verifier.attacks import Search
from verifier.attacks.masking import QUERIES, STEPS, Signs, masking_signs
from verifier.attacks.settings import draws_nothing, is_masked
from verifier.budget import Budget
from verifier.commands.attack_request import AttackRequest
from verifier.commands.job import DataJob
from verifier.runs.attack_record import AttackRecord
from verifier.subject import Subject

# Inputs that are looked at, and the share of them, two at least, that makes a sign one.
INPUTS = 50
SHARE = 0.05
MASKED = (
    "{name} follows true gradients, which MWD and k-winners layers mask: few of these inputs may withstand what does "
    "not; --pseudogradients both, or the attack auto, follows both"
)
DRAWLESS = (
    "{name} takes means over draws, and {model} draws nothing: one draw is the network itself, whose own gradient each "
    "step takes, once"
)


def count_signs(job: DataJob, request: AttackRequest, records: Sequence[AttackRecord], seconds: float) -> Signs | None:
    """Return the signs at the first correctly classified inputs; None where there are none. seconds: for an input.

    None too of attacks of other names, targets and surrogates, which are asked what they find and no more.
    """
    asked = [record for record in records if record.correct][:INPUTS]
    if request.name != "auto" or request.target is not None or request.surrogate is not None or not asked:
        return None
    points = torch.cat([job.points(range(record.index, record.index + 1)) for record in asked])
    classes = np.array([record.head.label for record in asked])
    batch = job.batch(points, [record.index for record in asked], classes, request.checked_norm)
    search = Search(
        batch.subject.network, batch.region(request.epsilon), batch.classes, batch.seeds, Budget(seconds * len(asked))
    )
    whole = torch.full_like(search.region.radius, batch.reach) if batch.bounded else None
    return masking_signs(search, whole)


def signs_in_words(signs: Signs) -> tuple[str, ...]:
    """Return a warning for each sign that enough inputs show."""
    found = {
        f"gradients of the margin vanish at {signs.vanishing}": signs.vanishing,
        f"a softmax is so sure that the gradient of its loss is exactly 0 at {signs.saturated}": signs.saturated,
        f"one step breaks {signs.one_step} more than {STEPS} steps": signs.one_step,
        f"{QUERIES} outputs break {signs.outputs} more than descents of {STEPS} steps": signs.outputs,
        f"the ball of twice the radius withstands these descents at {signs.larger} more": signs.larger,
        f"the whole domain withstands these descents at {signs.unbounded}": signs.unbounded or 0,
        f"the margin jumps up on the way that its gradient points to at {signs.terraces}": signs.terraces,
    }
    least = max(2.0, SHARE * signs.inputs)
    told = (words for words, count in found.items() if count >= least)
    return tuple(
        f"a sign of masked gradients: {words} of the first {signs.inputs} inputs; attacks that follow true gradients "
        "say little here" for words in told
    )  # fmt: skip


def attack_warnings(request: AttackRequest, subject: Subject, signs: Signs | None) -> Iterator[str]:
    """Yield what an attack leaves undone on a network, and the signs that it found."""
    if is_masked(request.attack, subject.network):
        yield MASKED.format(name=request.name)
    if draws_nothing(request.attack, subject.network):
        yield DRAWLESS.format(name=request.name, model=subject.name)
    if signs is not None:
        yield from signs_in_words(signs)
