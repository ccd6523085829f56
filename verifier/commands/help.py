"""What `verifier` says of itself: an example of every command, and its version."""

from __future__ import annotations

import argparse
import sys

EXAMPLES = """\
examples:
  verifier certify model.onnx --data data.npz --epsilon 2/255 8/255 --clip 0 1
  verifier attack model.onnx --data data.npz --attack auto --epsilon 8/255
  verifier robustness digits-relu --data digits --epsilon 0.05
  verifier compare digits-relu --data digits --epsilon 0.04 --limit 100
  verifier train mwd --data mnist --out model.safetensors
  verifier check runs/certify-0123456789ab
  verifier show digits-conv
"""


class Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(version("robustness-verifier"), file=sys.stdout)
        parser.exit()
