"""Searches that the tests of attacks share."""

import math

import numpy as np
import torch
from scipy.optimize import LinearConstraint, linprog, minimize

from encoders import BallRegion, Network, read_network
from verifier.attacks import Search
from verifier.budget import Budget
from verifier.data import load_data
from verifier.zoo import shipped_models


def search_of(network, centres, epsilon, classes, seconds=math.inf, norm="inf", domain=(0.0, 1.0), targets=None):
    """Return a search around the centres, seeded by their positions."""
    radii = torch.full((len(centres),), epsilon, dtype=torch.float64)
    region = BallRegion(centres.to(torch.float64), radii, domain, norm)
    return Search(network, region, classes, tuple(range(len(centres))), Budget(seconds), targets)


def random_search(network: Network, count: int, epsilon: float, seed: int = 1, **settings) -> Search:
    """Return a search around random inputs and the classes that the network gives them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, *network.input_shape, generator=generator)
    return search_of(network, centres, epsilon, network.scores(centres).argmax(dim=1), **settings)


def linear_margin(weight, search, points):
    """Return y_0 - y_1 of a two-class linear network with rows (w, -w) / 2, up to its constant."""
    return (points.double() - search.region.centre).flatten(1) @ weight.double()


def digits_search(model: str, norm: str, count: int, epsilon: float = 64.0) -> Search:
    """Return a search around the first correctly classified held-out digits; the radius reaches everywhere."""
    network = read_network(shipped_models()[model])
    data = load_data("digits").fit_to(network.input_shape)
    x, labels = torch.tensor(data.inputs), torch.tensor(data.labels)
    rows = torch.nonzero(network.scores(x).argmax(dim=1) == labels).squeeze(1)[:count]
    return search_of(network, x[rows], epsilon, labels[rows], norm=norm)


def length(r, norm):
    """Return the norm of a step."""
    return float(torch.linalg.vector_norm(r, float(norm)))


def best_length(g, m, below, above, norm):
    """Return the optimum of min ||r|| subject to <g, r> <= -m and the box, by a general solver."""
    n, box = len(g), list(zip(-below, above, strict=True))
    if norm == "2":
        start = np.where(g > 0, -below, above)
        constraint = LinearConstraint(g[None], -np.inf, -m)
        return minimize(
            lambda r: r @ r, start, jac=lambda r: 2 * r, bounds=box, constraints=[constraint], method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        ).fun ** 0.5  # fmt: skip
    # Variables (r, t): |r_i| <= t_i, and all t_i are one t in the inf-norm.
    identity = np.eye(n)
    sizes = np.ones((n, 1)) if norm == "inf" else identity
    count = sizes.shape[1]
    rows = np.vstack([np.hstack([identity, -sizes]), np.hstack([-identity, -sizes]), np.append(g, np.zeros(count))])
    cost = np.append(np.zeros(n), np.ones(count))
    right = np.append(np.zeros(2 * n), -m)
    return linprog(cost, A_ub=rows, b_ub=right, bounds=[*box, *[(0, None)] * count]).fun
