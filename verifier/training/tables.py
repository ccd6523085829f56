"""Names that a training may be asked for by, and which options each regime takes. Loads neither numpy nor torch."""

from __future__ import annotations

# Names of tables that load torch.
NETWORKS = (
    "mwd", "mwd-conv", "relu", "sigmoid", "linear", "mlp", "lenet", "lenet-linear-convolutions", "cnn-small",
    "cnn-medium", "cnn-wide", "nin", "resnet18", "distance",
)  # fmt: skip
ATTACKS = (
    "fgsm", "ifgsm", "pgd", "fgsm-random", "mi-fgsm", "pgd-short", "apgd", "adv-loss", "adv-loss-sign", "adv-alpha",
)  # fmt: skip
MWD_NETWORKS = ("mwd", "mwd-conv")
PRECISIONS = ("float32", "bfloat16")
STATISTICS = ("inputs", "middles")
SCHEDULES = ("batch", "printed", "published")

_ATTACK = ("attack", "attack_epsilon", "attack_norm", "attack_steps", "attack_step", "restarts", "unclipped")
# Regimes whose losses are found in bfloat16 when asked for, all but those whose values need more digits.
_FAST = ("precision",)
_CERTIFIED = ("certified_epsilon", "ramp")
# The options that each regime takes, beside those of every training.
REGIMES: dict[str, tuple[str, ...]] = {
    "plain": _FAST,
    "dropout": ("dropout",),
    "drop-connect": ("drop_connect",),
    "delta-rule": ("deviation", "beta", "zeta", "deviation_schedule"),
    "delta-rule-learnable": ("deviation",),
    "resize-and-pad": ("smallest",),
    "distillation": ("temperature", "teacher"),
    "adversarial": (*_ATTACK, *_FAST),
    "mixed": (*_ATTACK, "attack_share", *_FAST),
    "two-step": (*_ATTACK, *_FAST),
    "goodfellow": (*_ATTACK, "attack_share"),
    "lwa": _ATTACK,
    "lwa-layer": tuple({*_ATTACK, "layer"} - {"unclipped"}),
    "perturbed-only": _ATTACK,
    "robust-linear": ("certified_epsilon", "attack_norm", "unclipped"),
    "interval": (*_CERTIFIED, "certified_share", "interval_cost", "batch_statistics", *_FAST),
    "crown-interval": (*_CERTIFIED, "certified_share"),
    "sabr": (*_CERTIFIED, "box_share", "attack", "attack_steps", "attack_step", "restarts", *_FAST),
    "mtl-interval": (*_CERTIFIED, "certified_share", "attack", "attack_steps", "attack_step", "restarts", *_FAST),
    "margins": ("certified_epsilon",),
    "sensitivity": ("sensitivity_cost",),
    "fine-tuning": ("examples", "levels", "within"),
}
# Every option that some regimes do not take.
SPECIAL = {name for names in REGIMES.values() for name in names}
