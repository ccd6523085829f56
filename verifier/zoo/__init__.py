"""Small trained models that ship with the package; `python -m verifier.zoo.build` makes them again."""

from pathlib import Path

FOLDER = Path(__file__).parent


def shipped_models() -> dict[str, Path]:
    """Return the file of each shipped model by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}
