"""Detectors of perturbed inputs: what they measure, their files, attacks that know them. They prove nothing."""
