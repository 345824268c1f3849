"""What `split` is predicted to gain, from passes and collectives that are timed at the start of a run on its machine.

Rank 0 times the networks while the others wait, and its figures are sent to all: they decide alike.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict

import torch
import torch.distributed as torch_dist
from torch import nn

from fastgan.dist import World, from_main
from fastgan.errors import ConfigError
from fastgan.schedule import Split
from fastgan.simulate import CostModel, Fabric, Gain, gain_of_split, parts_from_times
from fastgan.train.build import build_networks, build_state
from fastgan.train.build_schedule import build_cost, build_schedule
from fastgan.train.config import ParallelConfig, RunConfig
from fastgan.train.log import say
from fastgan.train.roles import Roles, make_roles
from fastgan.train.state import TrainState
from fastgan.train.step import frozen

# Below this the other policies are simpler and read no stale weights.
REQUIRED_GAIN = 1.1
_NUM_TRIALS = 3
# A pass of more images is not slower per image.
_MAX_IMAGES = 64
# So few bytes that an all-reduce of them shows nothing but latency.
_FEW_BYTES = 64


def choose_roles(
    config: RunConfig, *, num_classes: int, dtype: torch.dtype, device: torch.device, world: World
) -> Roles:
    """The roles of the configuration's policy `split`, sized by measured times where it leaves that open.

    Says what is gained over `alternate` on the same ranks. All ranks call it together.

    Raises:
        ConfigError: on all ranks, if that is too little and `schedule.force` is not set.
    """
    cost = measured_cost(config, num_classes=num_classes, dtype=dtype, device=device, world=world)
    policy = build_schedule(config, num_ranks=world.num_ranks, cost=cost)
    assert isinstance(policy, Split)
    gain = gain_of_split(policy, cost)
    say(f"{policy}; {_in_words(gain)}")
    if gain.times < REQUIRED_GAIN and not config.schedule.force:
        raise ConfigError(
            f"schedule.policy=split is not worth its staleness here: {_in_words(gain)}, and at least {REQUIRED_GAIN} "
            "are asked for; use schedule.policy=alternate, or set schedule.force=true"
        )
    return make_roles(policy, world, timeout_seconds=config.parallel.timeout_seconds)


def _in_words(gain: Gain) -> str:
    milliseconds = f"{1e3 * gain.seconds:.3g} ms a step instead of {1e3 * gain.alternate_seconds:.3g} ms"
    return f"predicted {gain.times:.2f} times the images per second of alternate ({milliseconds})"


def measured_cost(
    config: RunConfig, *, num_classes: int, dtype: torch.dtype, device: torch.device, world: World
) -> CostModel:
    """A model of this run's steps, the same on all ranks; they call it together."""
    shapes = build_networks(config, num_classes=num_classes, device="meta")
    num_bytes = max(sum(4 * p.numel() for p in network.parameters()) for network in shapes)
    fabric = _measured_fabric(world, num_bytes, device)

    def measure() -> str:
        # Fresh networks on one process, whatever is trained how.
        alone = config.model_copy(update={"parallel": ParallelConfig(engine="single")})
        state = build_state(alone, num_classes=num_classes, dtype=dtype, device=device)
        size = config.micro_batch_images or min(config.batch_images, 2 * -(-config.batch_images // world.num_ranks))
        many = min(size, _MAX_IMAGES)
        passes = [_Passes(alone, state, num_images=n, device=device) for n in sorted({max(1, many // 4), many})]
        times = {name: {p.num_images: p.seconds(name) for p in passes} for name in passes[0].by_name}
        return json.dumps({"times": times, "fabric": asdict(fabric)})

    found = json.loads(from_main(world, measure))
    times = {name: {int(n): s for n, s in seconds.items()} for name, seconds in found["times"].items()}
    parts, fabric = parts_from_times(times), Fabric(**found["fabric"])
    return build_cost(config, parts=parts, fabric=fabric, num_classes=num_classes)


class _Passes:
    """The parts of a step on `num_images` images, as functions without arguments."""

    def __init__(self, config: RunConfig, state: TrainState, *, num_images: int, device: torch.device) -> None:
        self.state, self.num_images, self.device = state, num_images, device
        shape = (num_images, config.data.channels, config.data.resolution, config.data.resolution)
        self.real = torch.rand(shape, device=device) * 2 - 1
        self.latents = torch.randn(num_images, config.generator.latent_dim, device=device)
        is_labelled = state.generator.num_classes
        self.labels = torch.zeros(num_images, dtype=torch.int64, device=device) if is_labelled else None
        self.fake = self._generate()
        self.by_name: dict[str, Callable[[], object]] = {
            "generate": self._generate,
            "judge_real": lambda: state.discriminator(self.real, self.labels),
            "update discriminator": lambda: self._update_discriminator({}),
            "update generator": self._update_generator,
            "apply discriminator": lambda: self._apply(state.discriminator, state.discriminator_engine.step),
            "apply generator": lambda: self._apply(state.generator, state.generator_engine.step),
        }
        for penalty in config.penalties:
            due = {penalty.kind: penalty.weight}
            self.by_name[f"update discriminator, {penalty.kind}"] = lambda due=due: self._update_discriminator(due)  # type: ignore[misc]

    def seconds(self, name: str) -> float:
        """Median time of a part."""
        times = []
        for _ in range(_NUM_TRIALS + 1):
            start = _now(self.device)
            self.by_name[name]()
            times.append(_now(self.device) - start)
        # The first pass sets kernels up.
        return statistics.median(times[1:])

    @torch.no_grad()
    def _generate(self) -> torch.Tensor:
        images: torch.Tensor = self.state.generator(self.latents, self.labels)
        return images

    def _update_discriminator(self, due: dict[str, float]) -> None:
        engine = self.state.discriminator_engine
        between = torch.full((self.num_images,), 0.5, device=self.device)
        output = engine(
            self.real,
            self.fake,
            self.labels,
            penalties=due,
            interpolation=between,
            noise=lambda: torch.ones_like(self.real),
        )
        output.loss.backward()  # type: ignore[no-untyped-call]
        engine.discard()

    def _update_generator(self) -> None:
        engine = self.state.generator_engine
        with frozen(self.state.discriminator):
            engine(self.latents, self.labels, real=self.real).loss.backward()  # type: ignore[no-untyped-call]
        engine.discard()

    def _apply(self, network: nn.Module, step: Callable[[], None]) -> None:
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        step()
        network.step_spectral_norm()  # type: ignore[operator]


def _measured_fabric(world: World, num_bytes: int, device: torch.device) -> Fabric:
    """Links as all-reduces over all ranks, in a ring, show them: one of few bytes and one of `num_bytes`."""
    few, many = (_all_reduce_seconds(size, device) for size in (_FEW_BYTES, num_bytes))
    num_messages = 2 * (world.num_ranks - 1)
    # A measurement may have a large one faster than a small one.
    bandwidth = num_messages / world.num_ranks * num_bytes / max(many - few, 1e-6)
    latency = few / num_messages
    return Fabric(
        gpus_per_node=world.num_ranks,
        intra_bytes_per_second=bandwidth,
        inter_bytes_per_second=bandwidth,
        intra_latency_seconds=latency,
        inter_latency_seconds=latency,
        algorithm="ring",
    )


def _all_reduce_seconds(num_bytes: int, device: torch.device) -> float:
    values = torch.zeros(-(-num_bytes // 4), device=device)
    times = []
    for _ in range(_NUM_TRIALS + 1):
        start = _now(device)
        torch_dist.all_reduce(values)
        times.append(_now(device) - start)
    return statistics.median(times[1:])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
