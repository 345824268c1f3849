"""Losses and penalties, and the two objectives that training differentiates."""

from fastgan.objectives.ensemble import COMBINATIONS, EnsembleGeneratorObjective, Opponent
from fastgan.objectives.losses import LOSSES, AdversarialLoss, adversarial_loss
from fastgan.objectives.modes import MODES, PenaltyMode
from fastgan.objectives.objective import DiscriminatorObjective, GeneratorObjective, MakeImages, ObjectiveOutput
from fastgan.objectives.penalties import (
    PENALTIES,
    PenaltyRule,
    r1_penalty,
    r2_penalty,
    wgan_gp_penalty,
    wgan_lp_penalty,
    zero_centered_penalty,
)

__all__ = [
    "COMBINATIONS",
    "LOSSES",
    "MODES",
    "PENALTIES",
    "AdversarialLoss",
    "DiscriminatorObjective",
    "EnsembleGeneratorObjective",
    "GeneratorObjective",
    "MakeImages",
    "ObjectiveOutput",
    "Opponent",
    "PenaltyMode",
    "PenaltyRule",
    "adversarial_loss",
    "r1_penalty",
    "r2_penalty",
    "wgan_gp_penalty",
    "wgan_lp_penalty",
    "zero_centered_penalty",
]
