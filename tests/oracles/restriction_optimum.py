"""The optimum of the restriction's linear program, by another solver and from the network's own derivative."""

import math

import numpy as np
from scipy.optimize import linprog

from verifier.restriction.question import Question


def brute_force(question: Question) -> float:
    """Return the optimum by scipy over rows taken one by one from the network's own derivative."""
    n = question.inputs
    count = len(question.at_centre)
    zero = np.zeros(n)
    jacobian = np.stack([question.values(np.eye(n)[i]) - question.values(zero) for i in range(n)], axis=1)
    scale = np.maximum(np.abs(jacobian).sum(axis=1), 1e-7)[:, None]
    jacobian, values = jacobian / scale, question.at_centre / scale[:, 0]
    ball = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    rows = np.vstack([np.hstack([-jacobian, np.zeros((count, 1))]), ball])
    ends = np.concatenate([values, np.zeros(2 * n)])
    bounds = [*zip(question.lower, question.upper, strict=True), (0, question.reach)]
    found = linprog(np.append(zero, 1.0), A_ub=rows, b_ub=ends, bounds=bounds)
    return float(found.fun) if found.status == 0 else math.inf
