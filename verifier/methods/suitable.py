"""Which methods take a network: every method of the table is asked, so that no refusal names others by hand."""

from encoders.network import Network
from verifier.methods import METHODS


def suitable_methods(network: Network, norm: str, scaled: bool = False) -> tuple[str, ...]:
    """Return the names of the methods that take the network, the norm and a scale, in the order of the table."""
    return tuple(
        name
        for name, m in METHODS.items()
        if norm in m.norms and (m.scales or not scaled) and m.refusal(network) is None
    )


def check_method(name: str, network: Network, norm: str, scaled: bool = False) -> None:
    """Raise ValueError with the reason why a method of the table refuses the network, and the methods that take it."""
    refusal = METHODS[name].refusal(network)
    if scaled and not METHODS[name].scales:
        refusal = f"method {name!r} does not take a scale for each coordinate"
    if refusal is not None:
        raise ValueError(f"{refusal}. Methods for this network: {', '.join(suitable_methods(network, norm, scaled))}")
