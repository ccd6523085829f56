"""Settings of attacks as options of the command line. Loads neither numpy nor torch."""

import argparse
from typing import Any

# Of `verifier.attacks.settings`; by default an attack has those of the table.
SETTINGS = {
    "steps": "of descents and minimisations",
    "step": "length of the steps of descents, in units of epsilon",
    "restarts": "descents of an input",
    "pseudogradients": "what descents differentiate on MWD and k-winners layers: no, only, both",
    "draws": "eot: draws of a randomised network that a gradient is the mean of",
    "queries": "outputs that square and corners ask for",
    "kappa": "cw: by how much the other class is to win",
    "alpha": "lbfgs: the same",
}


class ReadSetting(argparse.Action):
    """Reads one setting of an attack beside the others."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        known = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**known, self.option_strings[0].removeprefix("--"): values})
