"""Batches of inputs of a network under test, given or random."""

import torch

from encoders.network import Network
from verifier.batch import Batch
from verifier.subject import Subject


def subject_of(network: Network) -> Subject:
    """Return the network as a model that executes itself."""
    return Subject("n", network, lambda x: network.evaluate(torch.from_numpy(x)).numpy(), torch.device("cpu"))


def batch_of(network: Network, centres: torch.Tensor, classes: torch.Tensor, runtime=None) -> Batch:
    """Return the inputs `(batch, *input_shape)` in [0, 1]; a runtime may execute otherwise than the network says."""
    run = runtime or (lambda x: network.evaluate(torch.from_numpy(x)).numpy())
    subject = Subject("test", network, run, torch.device("cpu"))
    return Batch(subject, centres.to(torch.float64), classes, tuple(range(len(centres))), (0.0, 1.0), 1.0)


def random_batch(network: Network, count: int, seed: int) -> Batch:
    """Return inputs drawn from [0, 1] with the classes that the network gives them."""
    subject = subject_of(network)
    x = torch.rand(count, *network.input_shape, generator=torch.Generator().manual_seed(seed)).to(torch.float64)
    return Batch(subject, x, network.evaluate(x.float()).argmax(dim=1), tuple(range(count)), (0.0, 1.0), 1.0)
