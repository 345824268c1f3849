"""From a configuration to the planner of its run, which needs no torch, and to what the run's steps cost."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastgan.schedule import Alternate, Balance, Joint, LazyPenalty, Policy, Split
from fastgan.train.config import RunConfig
from fastgan.train.config_models import KEYS_OF_POLICIES

if TYPE_CHECKING:
    from fastgan.simulate import CostModel, Fabric, Part

POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in (Alternate, Joint, Balance, Split)}


def build_schedule(config: RunConfig, *, num_ranks: int = 1, cost: "CostModel | None" = None) -> Policy:
    """The planner of the run.

    Args:
        cost: by which roles are sized where the configuration leaves that open; None: both networks take equally long.
    Raises:
        ConfigError: if the batch does not divide over ranks and micro-batches, or the schedule's keys contradict.
    """
    schedule = config.schedule
    settings: dict[str, Any] = {key: getattr(schedule, key) for key in KEYS_OF_POLICIES[schedule.policy]}
    # It is about starting the run, not about what the run does.
    settings.pop("force", None)
    is_open = settings.get("discriminator_ranks") == "auto"
    if is_open:
        # As few as leave every other rank an image, or a micro-batch.
        num_units = config.batch_images // (config.micro_batch_images or 1)
        settings["discriminator_ranks"] = max(1, num_ranks - num_units)
    policy = POLICIES[schedule.policy](
        batch_images=config.batch_images,
        micro_batch_images=config.micro_batch_images,
        penalties=tuple(LazyPenalty(p.kind, p.weight, p.every) for p in config.penalties),
        num_ranks=num_ranks,
        shares=schedule.shares,
        discriminator_start_images=schedule.discriminator_start_images,
        generator_start_images=schedule.generator_start_images,
        **settings,
    )
    if is_open:
        from fastgan.simulate import best_roles, unit_model

        assert isinstance(policy, Split)
        return best_roles(policy, cost or unit_model(policy))
    return policy


def build_cost(
    config: RunConfig, *, parts: "Mapping[str, Part]", fabric: "Fabric", num_classes: int = 0
) -> "CostModel":
    """The costs of the run's steps: passes as given, gradients of its networks, sent as its engine sends them.

    Args:
        num_classes: of the images, where networks are given their labels.
    """
    from fastgan.simulate import CostModel
    from fastgan.train.build import build_networks

    parallel = config.parallel
    networks = build_networks(config, num_classes=num_classes, device="meta")
    generator, discriminator = (sum(4.0 * p.numel() for p in network.parameters()) for network in networks)
    return CostModel(
        parts=parts,
        gradient_bytes={"generator": generator, "discriminator": discriminator},
        fabric=fabric,
        hides_reduction=parallel.engine != "flat" or parallel.overlap,
        sent_share=0.5 if parallel.compression == "bf16" else 1.0,
    )
