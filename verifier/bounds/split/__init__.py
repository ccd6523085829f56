"""Branch and bound over the signs of hinge units: proposals in float32, which `verifier.certificates` proves."""
