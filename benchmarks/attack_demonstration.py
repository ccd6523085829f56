"""One untargeted and one targeted attack as a picture: image, adversarial image, difference, labels and confidences.

    python benchmarks/attack_demonstration.py MODEL --data cifar10 [--data-dir FOLDER] [--mean M ...] [--std S ...]
        [--index I] [--target T] [--epsilon 2/255] [--out attack-demonstration.png]

After the demonstration of Pallaprolu and Madala (2020), who attack a ResNet-50 on ImageNet at 2/255 and show the
perturbation times 50; this takes any network that the readers accept. Both attacks take all their steps (PGD on the
margin, from the input and from random points), so that the network gets as sure of the wrong class as it can.
Without --index: of the first inputs the one where the confidences before and after both attacks add up to most, so a
favourable one; without --target: the class of which the network gets surest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders import BallRegion
from verifier.attacks import Search
from verifier.attacks.descent import Descent
from verifier.attacks.steps import Steepest
from verifier.budget import Budget
from verifier.commands.adversarial_example import AdversarialExample, Exhibit, confidences
from verifier.data import load_data
from verifier.reports.exhibits import as_picture, exhibit_grid
from verifier.subject import Subject, load_subject

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Inputs looked at for a favourable one.
CANDIDATES = 100


def fraction(text: str) -> float:
    """Return a number written as a decimal or as a fraction."""
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


def search(subject: Subject, x: Tensor, labels: Tensor, epsilon: float, targets: Tensor | None) -> Search:
    radii = torch.full((len(x),), epsilon, dtype=torch.float64)
    region = BallRegion(x.double(), radii, (0.0, 1.0))
    return Search(subject.network, region, labels, list(range(len(x))), Budget(float("inf")), targets)


def attacked(
    subject: Subject, x: Tensor, labels: Tensor, epsilon: float, targets: Tensor | None, steps: int
) -> tuple[Tensor, Tensor]:
    """Return (points, a mask of those that are what was searched for)."""
    descent = Descent(steps, Steepest(0.1), until_broken=False)
    found = descent.run(search(subject, x, labels, epsilon, targets))
    return found.points, found.unsafe


def driven(subject: Subject, x: Tensor, label: int, epsilon: float, steps: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return (the other classes, points driven to each, their confidences) for one input `(1, *shape)`.

    The confidence is 0 where the class was not reached.
    """
    targets = torch.tensor([k for k in range(subject.classes) if k != label])
    repeated, labels = x.expand(len(targets), *x.shape[1:]), torch.full_like(targets, label)
    points, reached = attacked(subject, repeated, labels, epsilon, targets, steps)
    shares = confidences(subject.execute(points))[np.arange(len(targets)), targets.numpy()]
    return targets, points, shares * reached.numpy()


def exhibit(subject: Subject, index: int, x: Tensor, point: Tensor, label: int, epsilon: float) -> Exhibit:
    """Return the point as it is shown, with the confidences of the user's own runtime."""
    before, after = (confidences(subject.execute(value))[0] for value in (x, point))
    prediction = int(after.argmax())
    region = BallRegion(x.double(), torch.full((1,), epsilon, dtype=torch.float64), (0.0, 1.0))
    distance = float(region.distance(point))
    example = AdversarialExample(index, x[0].numpy(), point[0].numpy(), distance, label, prediction)
    return Exhibit(example, float(before[label]), float(after[prediction]))


def choose(subject: Subject, x: Tensor, labels: Tensor, epsilon: float) -> int:
    """Return the position of the input where the confidences before and after both attacks add up to most."""
    with torch.no_grad():
        right = torch.nonzero(subject.network.scores(x).argmax(dim=1) == labels).squeeze(1).tolist()
    sums = []
    for position in right:
        image, label = x[position, None], int(labels[position])
        shares = driven(subject, image, label, epsilon, 20)[2]
        sums.append(confidences(subject.execute(image)).max() + np.sort(shares)[-2:].sum())
    return int(right[int(np.argmax(sums))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--mean", nargs="*", type=float, default=[])
    parser.add_argument("--std", nargs="*", type=float, default=[])
    parser.add_argument("--index", type=int)
    parser.add_argument("--target", type=int)
    parser.add_argument("--epsilon", type=fraction, default=2 / 255)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("attack-demonstration.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    subject = load_subject(options.model, device="cpu", mean=options.mean, std=options.std)
    dataset = load_data(options.data, data_dir=options.data_dir)
    count = CANDIDATES if options.index is None else options.index + 1
    inputs = np.array(dataset.inputs[:count])
    x = torch.from_numpy(inputs).to(subject.network.dtype).reshape(-1, *subject.network.input_shape)
    labels = torch.as_tensor(np.array(dataset.labels[:count])).long()
    if as_picture(x[0].numpy()) is None:
        parser.error(f"{options.model} takes inputs of shape {subject.network.input_shape}, which are no pictures")
    index = choose(subject, x, labels, options.epsilon) if options.index is None else options.index
    image, label = x[index, None], int(labels[index])
    free, _ = attacked(subject, image, labels[index, None], options.epsilon, None, options.steps)
    targets, points, shares = driven(subject, image, label, options.epsilon, options.steps)
    # The untargeted attack shows one class already.
    other = targets.numpy() != confidences(subject.execute(free))[0].argmax()
    wanted = targets.numpy() == options.target if options.target is not None else other
    aim = int(np.where(wanted, shares, -1.0).argmax())
    if not shares[aim] * wanted[aim]:
        parser.error(f"within {options.epsilon} input {index} reaches no class that was asked for; try a larger one")
    exhibits = [exhibit(subject, index, image, point, label, options.epsilon) for point in (free, points[aim, None])]
    names = CIFAR10 if options.data == "cifar10" else ()
    exhibit_grid(exhibits, f"untargeted and targeted, epsilon {options.epsilon:.4f}", options.out, names)
    for name, one in zip(("untargeted", "targeted"), exhibits, strict=True):
        e = one.example
        print(
            f"{name}: input {index}, class {e.label} ({one.confidence_before:.2%}) -> class {e.prediction} "
            f"({one.confidence_after:.2%}), distance {e.distance:.5f}"
        )
    print(f"driven to {np.count_nonzero(shares)} of {len(targets)} classes; wrote {options.out}")


if __name__ == "__main__":
    main()
