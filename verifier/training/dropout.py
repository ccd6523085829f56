"""Dropout behind the dense hidden layers of a chain (Srivastava et al. 2014): in training only."""

from torch import nn


def with_dropout(module: nn.Sequential, probability: float) -> nn.Sequential:
    """Return the chain with dropout behind each function that follows a hidden linear layer; its layers are shared.

    Raises ValueError where there is none.
    """
    layers = list(module)
    result = list[nn.Module]()
    for number, layer in enumerate(layers):
        result.append(layer)
        hidden = any(isinstance(later, nn.Linear) for later in layers[number + 1 :])
        if hidden and isinstance(layer, nn.ReLU | nn.Sigmoid) and isinstance(layers[number - 1], nn.Linear):
            result.append(nn.Dropout(probability))
    if len(result) == len(layers):
        raise ValueError("regime dropout needs a network with a dense hidden layer of relu or sigmoid units")
    return nn.Sequential(*result)
