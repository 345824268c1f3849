"""Optimizer state that goes from one engine and number of ranks to another."""

from typing import Any

import torch
from torch import Tensor

from fastgan.schedule import ScheduleState
from tests.parallel import toy
from tests.parallel.toy import Case

Saved = dict[str, Any]


def save_after_training(case: Case) -> Saved:
    """The whole state, as a checkpoint has it."""
    state = toy.build(case)
    toy.train_steps(state, case)
    return {
        "weights": toy.whole_weights(state),
        "generator": _arrays(state.generator_engine.state_dict()),
        "discriminator": _arrays(state.discriminator_engine.state_dict()),
        "schedule": state.schedule.to_json(),
    }


def go_on(case: Case, saved: Saved) -> Saved:
    """Builds the engines around the saved weights, restores the optimizers, and trains on."""
    networks = toy.networks

    def restored(case: Case) -> Any:
        generator, discriminator = networks(case)
        for name, network in (("generator", generator), ("discriminator", discriminator)):
            network.load_state_dict(_of(saved["weights"], name))
        return generator, discriminator

    toy.networks = restored
    try:
        state = toy.build(case)
    finally:
        toy.networks = networks
    state.generator_ema.load_state_dict(_of(saved["weights"], "generator_ema"))
    for name, engine in (("generator", state.generator_engine), ("discriminator", state.discriminator_engine)):
        engine.load_state_dict({key: torch.from_numpy(value) for key, value in saved[name].items()})
    state.schedule = ScheduleState.from_json(saved["schedule"])
    toy.train_steps(state, case)
    return {"weights": toy.whole_weights(state)}


def _of(weights: dict[str, Any], network: str) -> dict[str, Tensor]:
    names = {name: name.removeprefix(f"{network}.") for name in weights if name.startswith(f"{network}.")}
    return {short: torch.from_numpy(weights[name]) for name, short in names.items()}


def _arrays(state: dict[str, Tensor]) -> dict[str, Any]:
    return {name: value.detach().cpu().contiguous().numpy().copy() for name, value in state.items()}
