"""Write a method of your own and let it work beside those of the library.

A method says of a batch of balls which are safe (it proves), or where an unsafe input lies (it finds), in answers that
`merge` brings together. This one proves by one forward pass: a chain of affine layers and relus changes a difference of
outputs by at most its Lipschitz constant in the inf-norm times the radius (Szegedy et al. 2014, section 4.3). Its
products are not rounded outward, so its strength is *computed*, not *checked*; the bracket says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders import BallRegion, Network
from encoders.ops import Affine
from verifier.answers import Answer, merged
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.data import load_data
from verifier.methods import METHODS
from verifier.methods.base import Method
from verifier.subject import load_subject
from verifier.verdict import Strength


class NormProduct(Method):
    """Proves radii by the product of the layers' norms; finds nothing."""

    name = "norm-product"
    proves = True
    finds = False
    strength = Strength.COMPUTED

    def refusal(self, network: Network) -> str | None:
        """Return which node is neither affine nor a relu; the network must be a chain of them."""
        for node in network.nodes:
            if node.op.kind not in ("affine", "relu"):
                return f"method {self.name!r} takes affine layers and relus; node {node.name!r} is {node.op.kind}"
        return None if isinstance(network.output.op, Affine) else f"method {self.name!r} needs an affine last layer"

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        """Return proofs of the balls within the radii."""
        return self.proofs(self.radii(batch) > region.radius, region.radius)

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Raise the lower ends to the radii, short of a tie; whatever is known already stays."""
        radii = self.radii(batch)
        return merged(answers, range(len(batch)), self.proofs(radii > 0, radii * (1 - 1e-9)))

    def radii(self, batch: Batch) -> Tensor:
        """Return for each input the least margin by its Lipschitz constant, `(batch,)`."""
        layers = [node.op for node in batch.subject.network.nodes if isinstance(node.op, Affine)]
        weights = [layer.weight.to(torch.float64) for layer in layers]
        scores, own = batch.subject.network.evaluate(batch.centres), batch.classes[:, None]
        # A row's sum of sizes is its norm; a relu moves no two values apart.
        hidden = torch.stack([w.abs().sum(dim=1).max() for w in weights[:-1]]).prod()
        constants = (weights[-1][own] - weights[-1][None]).abs().sum(dim=2) * hidden
        margins = scores.gather(1, own) - scores
        return (margins / constants).scatter(1, own, torch.inf).amin(dim=1)


def main() -> None:
    """Print the mean lower end by this method, by intervals, and by both together."""
    subject, data = load_subject("digits-relu", device="cpu"), load_data("digits")
    assert data.labels is not None
    points, labels = subject.points(data.inputs[:64], data.clip), torch.tensor(data.labels[:64])
    method = NormProduct()
    assert method.refusal(subject.network) is None
    batch = Batch(subject, points.to(torch.float64), labels, tuple(range(64)), data.clip, reach=1.0)
    correct = subject.network.evaluate(points).argmax(dim=1) == labels
    batch = batch.at(torch.nonzero(correct).squeeze(1))
    unknown = [Answer()] * len(batch)
    mine = method.bracket(batch, [0.01], unknown, Budget())
    theirs = METHODS["interval"].bracket(batch, [0.01], unknown, Budget())
    both = [answer.merge(other) for answer, other in zip(mine, theirs, strict=True)]
    for name, answers in ((method.name, mine), ("interval", theirs), ("together", both)):
        lower = [max(answer.bracket.lower, 0.0) for answer in answers]
        print(f"{name}: mean safe radius {sum(lower) / len(lower):.6f}")
    print(both[0].bracket)


if __name__ == "__main__":
    main()
