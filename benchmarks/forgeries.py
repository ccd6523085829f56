"""Certificates altered at random, given to both checkers: none that is accepted may claim more than is true.

    PYTHONPATH=. python benchmarks/forgeries.py [--mutations N] [--seed S]

Certificates are of networks of two inputs, whose exact least margin an oracle of the tests finds in rationals, and of
chains of MWD layers, networks of sigmoids and tanhs, and balls of the 2- and the 1-norm, of which unsafe points are
known. Their radii lie at most 0.001 below the exact ones, or 3 % below the nearest such point. One or several
alterations are made to fields of the header, to arrays, or to bytes of the file; half of the time to a certificate that
claims a radius past the exact one, another winner or a wider domain, so that whatever still passes shows a hole. A
crash counts as one, too.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

import verifier_check
from encoders.formats.native import write_network
from encoders.network import Network
from encoders.ops import Sigmoid, Tanh
from encoders.region import BallRegion
from tests.networks.batches import random_batch
from tests.networks.chains import curve_network, hinge_network
from tests.networks.mwd_chains import KINDS, network_of
from tests.oracles.distance_claims import is_false, nearest_unsafe
from tests.oracles.polygons import least_margin
from verifier.bounds.inputs.certified import certificate_by_inputs
from verifier.bounds.mwd.certified import certificate_by_contraction
from verifier.bounds.split import search
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.error import CertificateError
from verifier.certificates.files import CertificateFile, read_certificate, write_certificate
from verifier.certificates.shortened import shortened
from verifier.commands.claims import evaluate
from verifier_check import Refused, Undecided, read_network
from verifier_check.file import Certificate as PlainCertificate
from verifier_check.network import Network as PlainNetwork

# Seeds of networks, and radii just below the exact ones.
CASES = {0: 0.3466, 1: 0.2167, 7: 0.1826, 8: 0.1630, 10: 0.1044, 12: 0.1591, 13: 0.4638, 15: 0.1757}
PAST = 0.002
Arrays = dict[str, np.ndarray]
Header = dict[str, Any]
Alteration = Callable[[Header, Arrays, np.random.Generator], None]
ODD = [0, 1, -1, 2, 255, 1 << 31, 1 << 63, -5, 0.5, 1e308, float("nan"), float("inf"), True, None, "0", [], {}, [[0]]]


class Base:
    """A network and the parts of a certificate's file about it."""

    def __init__(self, kind: str, network: Network, certificate: Certificate, folder: Path) -> None:
        self.kind, self.network, self.past = kind, network, PAST
        named = write_certificate(certificate, folder / "certificates", 0)
        self.content = (folder / named.file).read_bytes()
        self.arrays: Arrays = dict(np.load(io.BytesIO(self.content)))
        self.header: Header = json.loads(self.arrays.pop("header").tobytes())
        write_network(network, folder / "network.safetensors")
        self.plain: PlainNetwork = read_network((folder / "network.safetensors").read_bytes())
        self.known: dict[tuple, bool] = {}
        self.unsafe: dict[int, list[np.ndarray]] | None = None
        self.grid: dict[int, list[np.ndarray]] | None = None

    def is_true(self, certificate: Certificate) -> bool:
        """Return whether what a certificate claims of the network holds, in rationals.

        Of others than boxes and networks of hinges: whether none of the points is in its ball that are known to be
        unsafe.
        """
        if self.unsafe is not None or certificate.norm != "inf":
            self.grid = self.unsafe or self.grid or unsafe_points(self.network)
            return not is_false(certificate, self.network, near(certificate, self.grid))
        centre, radius = [Fraction(v) for v in certificate.centre.tolist()], Fraction(certificate.radius)
        ends = certificate.domain or (-1e300, 1e300)
        least, greatest = (max(-1e300, min(float(end), 1e300)) for end in ends)  # type: ignore[union-attr]
        key = (*centre, radius, least, greatest, certificate.winner)
        if key not in self.known:
            lower = [max(v - radius, Fraction(least)) for v in centre]
            upper = [min(v + radius, Fraction(greatest)) for v in centre]
            self.known[key] = least_margin(self.network, lower, upper, certificate.winner) > 0
        return self.known[key]


def bases(folder: Path, cases: int) -> list[Base]:
    """Return certificates by signs, long and short, of so many networks: with boxes of subtrees, with planes and trees
    of units; and by inputs.
    """
    found, before = [], (search.SUBTREE_SPLITS, search.SUBTREE_HINGES, search.LEVELS)
    for seed, radius in list(CASES.items())[:cases]:
        network = hinge_network(seed, (2, 8, 6, 3))
        batch = random_batch(network, 1, seed)
        region, winner = batch.region(radius), int(batch.classes[0])
        for kind, splits, levels in (
            ("signs", 10**9, ((0, 0, 0), (20, 0, None))),
            ("subtrees", 1, ((0, 0, 0), (20, 0, None))),
            ("planes", 10**9, ((0, 0, 0), (20, 3, None))),
        ):
            search.SUBTREE_SPLITS, search.SUBTREE_HINGES, search.LEVELS = splits, 2, levels
            made = search.decide_ball(network, region, winner, lambda _: False, Budget(), 4000).certificate
            assert made is not None
            search.SUBTREE_SPLITS, search.SUBTREE_HINGES, search.LEVELS = before
            if made.planes is None and kind == "planes":
                continue
            found.append(Base(kind, network, shortened(made, network) if seed % 2 else made, folder))
        asked = Conjunctions.of_class(network.cast(torch.float64), winner)
        by_inputs = certificate_by_inputs(network, asked, region, winner, Budget(), 20_000)
        if isinstance(by_inputs, Certificate):
            found.append(Base("inputs", network, by_inputs, folder))
    return found


def of_distances(folder: Path, cases: int) -> list[Base]:
    """Return certificates by contraction of so many chains of each kind, up to a known unsafe point."""
    found = []
    for kind, seed in itertools.product(KINDS, range(cases)):
        network = network_of(kind, seed, (2, 7, 5, 3))
        centre = torch.rand(1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        winner = int(network.scores(centre).argmax())
        nearest = nearest_unsafe(network, centre, winner)
        if nearest is None:
            continue
        radius = torch.tensor([0.97 * float(np.abs(nearest - centre[0].numpy()).max())], dtype=torch.float64)
        region = BallRegion(centre, radius, (0.0, 1.0))
        made = certificate_by_contraction(network, region, winner, Budget(), 60)
        if isinstance(made, Certificate):
            base = Base("distances", network, made, folder)
            base.unsafe = unsafe_points(network) | {}
            base.unsafe[winner] = [nearest, *base.unsafe[winner]]
            # Half of the radii are past the nearest point.
            base.past = float(np.nextafter(np.abs(nearest - made.centre).max(), 1.0)) - made.radius
            found.append(base)
    return found


def of_points(folder: Path, cases: int) -> list[Base]:
    """Return certificates by inputs, of networks of curves and of balls of two norms, up to an unsafe point."""
    found = []
    for kind, seed in itertools.product(("sigmoid", "tanh", "2-norm", "1-norm"), range(cases)):
        network, norm = hinge_network(seed, (2, 8, 6, 3)), "inf"
        if kind.endswith("norm"):
            norm = kind[0]
        else:
            network = curve_network({"sigmoid": Sigmoid(), "tanh": Tanh()}[kind], seed)
        centre = torch.rand(1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        winner = int(network.scores(centre).argmax())
        nearest = nearest_unsafe(network, centre, winner, norm=float(norm))
        if nearest is None:
            continue
        distance = float(np.linalg.norm(nearest - centre[0].numpy(), float(norm)))
        region = BallRegion(centre, torch.tensor([0.97 * distance], dtype=torch.float64), (0.0, 1.0), norm)
        asked = Conjunctions.of_class(network.cast(torch.float64), winner)
        made = certificate_by_inputs(network, asked, region, winner, Budget(), 1_000)
        if isinstance(made, Certificate):
            base = Base(kind, network, made, folder)
            base.unsafe = unsafe_points(network) | {}
            base.unsafe[winner] = [nearest, *base.unsafe[winner]]
            base.past = 1.000001 * distance - made.radius
            found.append(base)
    return found


def unsafe_points(network: Network) -> dict[int, list[np.ndarray]]:
    """Return points of a grid by the classes that do not win there."""
    axis = torch.linspace(-0.5, 1.5, 61, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    scores = network.scores(grid)
    best = scores.amax(dim=1)
    return {k: list(grid[scores[:, k] < best - 1e-9].numpy()) for k in range(scores.shape[1])}


def near(certificate: Certificate, unsafe: dict[int, list[np.ndarray]]) -> dict[int, list[np.ndarray]]:
    """Return the points that may lie in the ball of a claim."""
    points = unsafe.get(certificate.winner, [])
    return {
        certificate.winner: [p for p in points if np.abs(p - certificate.centre).max() <= 1.001 * certificate.radius]
    }


# ------------------------------------------------------------------------------------------------------ what is altered


def other_field(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    header[str(generator.choice(list(header)))] = copy.deepcopy(ODD[generator.integers(len(ODD))])


def other_entry(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    """A number within `trees`, `boxes`, `subtrees`: another, one more, one less; or an entry twice, gone, moved."""
    listed = ("trees", "boxes", "subtrees", "distances", "unit_trees", "unit_planes")
    names = [name for name in listed if isinstance(header.get(name), list) and header[name]]
    if not names:
        return
    entries = header[str(generator.choice(names))]
    at, draw = int(generator.integers(len(entries))), generator.random()
    if draw < 0.15:
        entries.append(copy.deepcopy(entries[at]))
    elif draw < 0.3:
        del entries[at]
    elif draw < 0.4:
        entries.reverse()
    elif isinstance(entries[at], str):
        # A node whose units have trees or planes.
        entries[at] = copy.deepcopy(ODD[generator.integers(len(ODD))]) if draw < 0.7 else header["boxes"][0][0]
    else:
        place = int(generator.integers(len(entries[at])))
        now = entries[at][place]
        odd = copy.deepcopy(ODD[generator.integers(len(ODD))])
        entries[at][place] = now + int(generator.choice([-1, 1])) if type(now) is int and draw < 0.8 else odd


def other_radius(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    header["radius"] = float(header["radius"]) * (
        1.0 + 10.0 ** generator.uniform(-12, 0.5) * generator.choice([-1, 1, 1])
    )


def other_winner(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    """Another winner, sometimes with the trees renamed."""
    old, new = header["winner"], int(generator.integers(-1, 4))
    header["winner"] = new
    if generator.random() < 0.7:
        name = "distances" if "distances" in header else "trees"
        header[name] = [[old if rival == new else rival, *rest] for rival, *rest in header[name]]


def other_domain(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    options = [None, [-1.0, 2.0], [0.0, 1.0], [1.0, 0.0], [float("-inf"), float("inf")], [0.2, 0.8], [0.0], "x"]
    header["domain"] = options[generator.integers(len(options))]


def other_norm(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    """Another norm, mostly with the schema that goes with it."""
    now = header.pop("norm", "inf")
    other = str(generator.choice([norm for norm in ("inf", "2", "1") if norm != now]))
    header |= {} if other == "inf" else {"norm": other}
    if generator.random() < 0.9:
        header["schema"] = 2 if other == "inf" else 4


def other_centre(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    size = 10.0 ** generator.uniform(-9, 0)
    arrays["centre"] = (arrays["centre"] + size * generator.choice([-1.0, 1.0], arrays["centre"].shape)).clip(-0.5, 1.5)


def other_numbers(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    """Some entries of an array: others of it, random bytes, extremes, moved by one."""
    name = str(generator.choice([name for name in arrays if name != "centre"]))
    values = arrays[name].copy()
    if not values.size:
        return
    flat = values.reshape(-1)
    places = generator.integers(flat.size, size=int(generator.choice([1, 1, 2, max(1, flat.size // 3)])))
    draw = generator.random()
    if draw < 0.3:
        flat[places] = flat[generator.integers(flat.size, size=len(places))]
    elif draw < 0.6:
        raw = flat.view(np.uint8).reshape(flat.size, -1) if flat.dtype != bool else flat.view(np.uint8).reshape(-1, 1)
        raw[places, int(generator.integers(raw.shape[1]))] = generator.integers(0, 2 if flat.dtype == bool else 256)
    elif draw < 0.8 and flat.dtype != bool:
        flat[places] += np.array(generator.choice([-1, 1])).astype(flat.dtype)
    elif flat.dtype.kind == "f":
        with np.errstate(over="ignore"):
            flat[places] = generator.choice([0.0, 1.0, -1.0, 1e30, -1e30, 1e300, np.inf, -np.inf, np.nan])
    else:
        flat[places] = generator.choice([0, 1])
    arrays[name] = values


def other_array(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    """A whole array: gone, cut, longer, of another type, shape or order, or that of another name."""
    name = str(generator.choice(list(arrays)))
    values, draw = arrays[name], int(generator.integers(9))
    if draw == 0:
        del arrays[name]
    elif draw == 1 and values.size:
        arrays[name] = values[:-1]
    elif draw == 2 and values.size:
        arrays[name] = np.concatenate([values, values[:1]])
    elif draw == 3:
        arrays[name] = values.astype(str(generator.choice(["u1", "i1", "i4", "i8", "u8", "f4", "f8", "f2", "?"])))
    elif draw == 4:
        arrays[name] = values[None]
    elif draw == 5:
        arrays[name] = np.roll(values, int(generator.integers(1, 4)), axis=0)
    elif draw == 6:
        arrays[name] = values[::-1]
    elif draw == 7:
        arrays[name] = arrays[str(generator.choice(list(arrays)))]
    else:
        arrays[name] = np.zeros_like(values)


def fewer_leaves(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    """A split and its two leaves made one leaf, with the counts that go with it."""
    kinds = [name for name in ("inputs.sides", "distances.sides", "splits") if name in arrays]
    if not kinds:
        return
    name = kinds[0]
    splits = arrays[name].astype(np.int64)
    places = np.flatnonzero((splits[:-2] >= 0) & (splits[1:-1] == -1) & (splits[2:] == -1)) if len(splits) > 2 else []
    if not len(places):
        return
    place = int(generator.choice(places))
    arrays[name] = np.delete(splits, [place + 1, place + 2]).astype(np.int32)
    arrays[name][place] = -1
    if name != "splits":
        for other in ("inputs.values", "inputs.tightened", "distances.values", "distances.passes"):
            if other in arrays:
                arrays[other] = np.delete(arrays[other], [place + 1, place + 2])
        if name == "distances.sides":
            ends = np.cumsum([nodes for _, nodes in header["distances"]])
            header["distances"][int(np.searchsorted(ends, place, side="right"))][1] -= 2
        return
    leaf, ends = int((splits[:place] == -1).sum()), np.cumsum([leaves for _, leaves, _ in header["trees"]])
    tree = int(np.searchsorted(ends, leaf, side="right"))
    header["trees"][tree][1] -= 1
    for other in ("sets", "subtrees.leaves"):
        if other in arrays:
            arrays[other] = np.delete(arrays[other], leaf + int(generator.integers(2)))


def more_names(header: Header, arrays: Arrays, generator: np.random.Generator) -> None:
    """An array or a field more: of a name that nobody knows, or one of another kind of certificate."""
    names = ["extra", "planes.units", "inputs.sides", "inputs.values", "distances.sides", "subtrees.signs", "long",
             "long.slopes", "unit_trees.0.splits", "unit_planes.0.slopes", "domain.lower"]  # fmt: skip
    name = str(generator.choice([name for name in names if name not in arrays]))
    if generator.random() < 0.7:
        arrays[name] = arrays[str(generator.choice(list(arrays)))]
    else:
        header[str(generator.choice(["note", "distances", "subtrees", "unit_trees", "unit_planes"]))] = []


ALTERATIONS: dict[str, Alteration] = {
    "field": other_field, "entry": other_entry, "radius": other_radius, "winner": other_winner,
    "domain": other_domain, "centre": other_centre, "numbers": other_numbers, "array": other_array,
    "leaves": fewer_leaves, "names": more_names, "norm": other_norm,
}  # fmt: skip
# Of what is altered in the content itself.
OFTEN = {"numbers": 0.45, "leaves": 0.12, "entry": 0.12, "array": 0.12}


def packed(header: Header, arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, header=text, **arrays)
    return buffer.getvalue()


def altered(base: Base, generator: np.random.Generator) -> tuple[str, bytes]:
    """Return what was altered, and the file."""
    if generator.random() < 0.04:
        content = bytearray(base.content)
        for place in generator.integers(len(content), size=int(generator.integers(1, 4))):
            content[place] = int(generator.integers(256))
        cut = len(content) if generator.random() < 0.7 else int(generator.integers(len(content)))
        return "bytes", bytes(content[:cut])
    header, arrays = copy.deepcopy(base.header), {name: values.copy() for name, values in base.arrays.items()}
    names = []
    if generator.random() < 0.5:
        names.append("past")
        header["radius"] += base.past
    rest = (1.0 - sum(OFTEN.values())) / (len(ALTERATIONS) - len(OFTEN))
    shares = [OFTEN.get(name, rest) for name in ALTERATIONS]
    for _ in range(int(generator.choice([1, 1, 2, 3]))):
        name = str(generator.choice(list(ALTERATIONS), p=shares))
        try:
            ALTERATIONS[name](header, arrays, generator)
        except (TypeError, ValueError, KeyError, IndexError, OverflowError, AttributeError):
            # An alteration before has left nothing of the kind that this one takes.
            continue
        names.append(name)
    return "+".join(names), packed(header, arrays)


# ----------------------------------------------------------------------------------------------------- what is counted


def fast_word(base: Base, content: bytes, place: Path) -> Certificate | None:
    place.write_bytes(content)
    try:
        found = read_certificate(place, hashlib.sha256(content).hexdigest(), 0)
        # As `check` asks: it refuses what hostile numbers raise.
        evaluate(found, CertificateFile(file="", sha256=""), base.network)
    except CertificateError:
        return None
    return found


def exact_word(base: Base, content: bytes) -> bool:
    try:
        verifier_check.check_certificate(content, base.plain)
    except (Refused, Undecided):
        return False
    return True


def claim_of(content: bytes) -> Certificate:
    """Return the claim of a file that the exact checker accepted."""
    found = PlainCertificate(content)
    domain = found.header["domain"]
    none = np.zeros(0)
    return Certificate(
        found.digest, np.array(found.centre), found.radius, None if domain is None else tuple(domain), found.winner,
        (), none, (), norm=found.norm,
    )  # fmt: skip


def asked(base: Base, names: str, content: bytes, place: Path, counts: Counter[str]) -> str | None:
    """Ask both checkers, and the oracle about what one accepts; return what is to be said of it."""
    started = time.process_time()
    try:
        fast = fast_word(base, content, place)
        middle = time.process_time()
        exact = exact_word(base, content)
    except Exception as error:
        counts["crashes"] += 1
        return f"CRASH {names}: {type(error).__name__} {error}"
    counts["fast, ms"] += round(1e3 * (middle - started))
    counts["exact, ms"] += round(1e3 * (time.process_time() - middle))
    counts["slowest, ms"] = max(counts["slowest, ms"], round(1e3 * (time.process_time() - started)))
    counts["mutations"] += 1
    counts[f"mutations of {base.kind}"] += 1
    counts["accepted by both"] += fast is not None and exact
    counts["by the fast one alone"] += fast is not None and not exact
    counts["by the exact one alone"] += fast is None and exact
    claims = [*([] if fast is None else [fast]), *([claim_of(content)] if exact else [])]
    if not all(base.is_true(claim) for claim in claims):
        counts["FALSE"] += 1
        return f"FALSE {names}"
    return f"differ {names}: fast {fast is not None}, exact {exact}" if (fast is None) == exact else None


def run(mutations: int, seed: int, cases: int = len(CASES)) -> Counter[str]:
    """Return the counts, so far if it is interrupted; print what is false, a crash or a difference as it is found.

    cases: of how many networks certificates are altered.
    """
    generator, counts = np.random.default_rng(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fewer = max(1, cases // 4)
        given = bases(place, cases) + of_distances(place, fewer) + of_points(place, fewer)
        for base in given:
            assert fast_word(base, base.content, place / "c.npz") is not None and exact_word(base, base.content)
        try:
            for number in range(mutations):
                base = given[int(generator.integers(len(given)))]
                names, content = altered(base, generator)
                said = asked(base, f"{seed}.{number} {base.kind} {names}", content, place / "c.npz", counts)
                if said is not None:
                    print(said, flush=True)
        except KeyboardInterrupt:
            print("interrupted")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.process_time()
    for name, count in sorted(run(options.mutations, options.seed).items()):
        print(f"{name}: {count}")
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
