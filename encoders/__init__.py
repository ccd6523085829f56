"""What must hold: networks, boxes, regions and their files. Solves nothing and has no randomness."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoders.box import Box
    from encoders.formats import read_network, read_property, write_network
    from encoders.network import Network, Node
    from encoders.property import Halfspaces, Property
    from encoders.region import BallRegion

_HOMES = {
    "BallRegion": "encoders.region",
    "Box": "encoders.box",
    "Halfspaces": "encoders.property",
    "Network": "encoders.network",
    "Node": "encoders.network",
    "Property": "encoders.property",
    "read_network": "encoders.formats",
    "read_property": "encoders.formats",
    "write_network": "encoders.formats",
}

__all__ = [
    "BallRegion",
    "Box",
    "Halfspaces",
    "Network",
    "Node",
    "Property",
    "read_network",
    "read_property",
    "write_network",
]


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562), so that importing the package does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'encoders' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
