"""Random boxes of a network's inputs, and points of a box."""

import numpy as np
import torch

from encoders.box import Box
from encoders.network import Network


def box_of(network: Network, generator: np.random.Generator) -> Box:
    """Return a random box: of points, thin, or wide; sometimes with ends at zero."""
    width = generator.choice([0.0, 1e-12, 0.3, 3.0])
    centre = generator.normal(size=network.input_shape) * generator.choice([0.0, 1.0, 1e3])
    half = width * generator.random(network.input_shape)
    lower, upper = centre - half, centre + half
    if generator.random() < 0.3:
        lower, upper = np.minimum(lower * 0.0, upper), np.maximum(upper, -0.0)
    return Box(*(torch.from_numpy(end).unsqueeze(0) for end in (lower, upper)))


def points_of(box: Box, generator: np.random.Generator, count: int) -> list[np.ndarray]:
    """Return corners and inner points of a box."""
    lower, upper = (end[0].numpy() for end in (box.lower, box.upper))
    shares = [generator.integers(0, 2, lower.shape) for _ in range(count)]
    shares += [generator.random(lower.shape) for _ in range(count)]
    return [np.clip(lower + share * (upper - lower), lower, upper) for share in shares]
