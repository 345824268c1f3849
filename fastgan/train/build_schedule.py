"""From a configuration to the planner of its run. Needs no torch."""

from typing import Any

from fastgan.schedule import Alternate, Balance, Joint, LazyPenalty, Policy
from fastgan.train.config import RunConfig
from fastgan.train.config_models import KEYS_OF_POLICIES

POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in (Alternate, Joint, Balance)}


def build_schedule(config: RunConfig, *, num_ranks: int = 1) -> Policy:
    """The planner of the run.

    Raises:
        ConfigError: if the batch does not divide over ranks and micro-batches, or the schedule's keys contradict.
    """
    schedule = config.schedule
    settings: dict[str, Any] = {key: getattr(schedule, key) for key in KEYS_OF_POLICIES[schedule.policy]}
    return POLICIES[schedule.policy](
        batch_images=config.batch_images,
        micro_batch_images=config.micro_batch_images,
        penalties=tuple(LazyPenalty(p.kind, p.weight, p.every) for p in config.penalties),
        num_ranks=num_ranks,
        shares=schedule.shares,
        discriminator_start_images=schedule.discriminator_start_images,
        generator_start_images=schedule.generator_start_images,
        **settings,
    )
