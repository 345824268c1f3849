"""Every key of a run's configuration: type, unit, default and rule. Needs pydantic only, so that it loads fast.

All models are frozen and refuse unknown keys. Counts end in `_images` where their unit is real images shown to the
discriminator, the clock of fastgan. Rules about one key stand in its type, see `config_types`, rules between keys in
`_rules`.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from fastgan.train.config_types import (
    Architecture,
    BatchImages,
    Beta,
    Combination,
    Compression,
    Count,
    Device,
    EngineKind,
    Fit,
    Fraction,
    ImageChannels,
    Images,
    LossKind,
    NonNegativeCount,
    Normalization,
    NumRanks,
    PenaltyKind,
    PenaltyModeName,
    Percent,
    PositiveNumber,
    Precision,
    Resolution,
    RunName,
    SchedulePolicy,
    Shares,
    Stage,
    Switch,
    TensorBoard,
    Text,
    WholeNumber,
    Width,
)

# The name, among several discriminators, of the one that has sections of its own.
FIRST_DISCRIMINATOR = "main"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class DataConfig(_Section):
    """Where the images come from and what is done to them before training."""

    path: Text | None = Field(default=None, description='"digits" (built in), a folder of images, or a .zip')
    resolution: Resolution = Field(description="height and width of the images, in pixels")
    channels: ImageChannels = Field(description="1 for grey, 3 for RGB")
    fit: Fit = Field(default="exact", description="what is done with images of another size; exact: refused")
    labels: Switch = Field(default=False, description="read a class number with every image and train on it")
    num_classes: Count | None = Field(default=None, description="number of classes; null: counted in the data")
    mirror: Switch = Field(default=False, description="flip each image left to right with probability 1/2")
    max_bad_fraction: Fraction = Field(
        default=0.01, description="share of unreadable images above which training stops"
    )
    num_workers: Count = Field(default=2, description="threads that decode images")
    cache_bytes: NonNegativeCount = Field(default=1 << 30, description="memory for decoded images, in bytes; 0: none")


class GeneratorConfig(_Section):
    """The network that makes images."""

    architecture: Architecture = Field(default="dcgan", description="transposed 4x4 convolutions of stride 2")
    latent_dim: Width = Field(default=128, description="numbers in a latent")
    channels: Width = Field(default=64, description="channels at half the resolution, doubled at each halving")
    max_channels: Width = Field(default=512, description="the doubling ends here")
    normalization: Normalization = Field(default="pixel", description="normalization behind every convolution")
    spectral_norm: Switch = Field(default=False, description="divide every weight by its largest singular value")
    label_dim: Width = Field(default=64, description="numbers in a label's embedding, used with data.labels")


class DiscriminatorConfig(_Section):
    """The network that judges images."""

    architecture: Architecture = Field(default="dcgan", description="4x4 convolutions of stride 2")
    channels: Width = Field(default=64, description="channels at half the resolution, doubled at each halving")
    max_channels: Width = Field(default=512, description="the doubling ends here")
    spectral_norm: Switch = Field(default=True, description="divide every weight by its largest singular value")
    spectral_norm_iterations: Count = Field(default=1, description="power iterations per update, 1 as in the paper")


class ObjectiveConfig(_Section):
    """What the two networks minimize, apart from penalties."""

    loss: LossKind = Field(default="non_saturating", description="the adversarial loss of both networks")


class PenaltyConfig(_Section):
    """One gradient penalty on the discriminator."""

    kind: PenaltyKind = Field(description="which gradient is held small, and on which images")
    weight: PositiveNumber = Field(description="factor before the penalty, as if it were applied in every update")
    every: Count = Field(default=1, description="applied in one of so many discriminator updates, times as strong")
    mode: PenaltyModeName = Field(default="double", description="exact, exact by two first-order passes, or estimated")
    sigma: PositiveNumber = Field(
        default=0.01, description="step of the mode approximate, in image units; in bf16 better 0.1"
    )


class ScheduleConfig(_Section):
    """Who is updated when."""

    policy: SchedulePolicy = Field(default="alternate", description="one network after the other, or both at once")
    discriminator_updates: Count = Field(default=1, description="alternate, split: discriminator updates per step")
    generator_updates: Count = Field(default=1, description="alternate, split: generator updates per step")
    share_fakes: Switch = Field(default=True, description="one batch of fakes serves both networks' updates in a step")
    min_updates: Count = Field(default=1, description="balance: fewest discriminator updates per step")
    max_updates: Count = Field(default=4, description="balance: most discriminator updates per step")
    low_percent: Percent = Field(default=20, description="balance: one update more below this sign statistic, in %")
    high_percent: Percent = Field(default=60, description="balance: one update fewer above it")
    patience: Count = Field(default=8, description="balance: after so many steps in a row outside of that band")
    discriminator_ranks: NumRanks = Field(
        default="auto", description="split: processes of the discriminator, the first"
    )
    publish_every: Count = Field(default=1, description="split: steps from one sending of the weights to the next")
    delay_steps: NonNegativeCount = Field(default=1, description="split: steps from a sending to the first read")
    max_staleness: NonNegativeCount | None = Field(default=None, description="split: in steps; null: what those imply")
    lockstep: Switch = Field(default=True, description="split: reads are as planned; false: the newest that arrived")
    force: Switch = Field(default=False, description="split: start though less than 1.1 times the speed is predicted")
    discriminator_start_images: NonNegativeCount = Field(default=0, description="until then the generator trains alone")
    generator_start_images: NonNegativeCount = Field(default=0, description="until then the discriminator trains alone")
    shares: Shares = Field(default="equal", description="micro-batches of each process: equal, measured, or a list")


# Which keys of the schedule each policy reads, beside those that all of them read.
KEYS_OF_POLICIES: dict[str, tuple[str, ...]] = {
    "alternate": ("discriminator_updates", "generator_updates", "share_fakes"),
    "joint": (),
    "balance": ("min_updates", "max_updates", "low_percent", "high_percent", "patience", "share_fakes"),
    "split": (
        "discriminator_updates",
        "generator_updates",
        "discriminator_ranks",
        "publish_every",
        "delay_steps",
        "max_staleness",
        "lockstep",
        "force",
    ),
}


class EngineConfig(_Section):
    """What one network does differently."""

    engine: EngineKind | None = Field(default=None, description="engine of this network; null: parallel.engine")
    stage: Stage | None = Field(default=None, description="ZeRO stage of this network; null: parallel.stage")


class ParallelConfig(_Section):
    """How the work is spread over processes."""

    engine: EngineKind = Field(default="auto", description="auto: ddp with several processes, else single")
    stage: Stage | None = Field(default=None, description="of deepspeed: 1 shards optimizers, 2 gradients, 3 weights")
    discriminator: EngineConfig = Field(default=EngineConfig(), description="the discriminator's engine")
    generator: EngineConfig = Field(default=EngineConfig(), description="the generator's engine")
    overlap: Switch = Field(default=False, description="one network's gradients travel while the other computes")
    compression: Compression = Field(default="none", description="bf16: gradients are sent and summed in bf16")
    deepspeed_config: Text | None = Field(default=None, description="JSON file with further settings of DeepSpeed")
    timeout_seconds: PositiveNumber = Field(default=600.0, description="longest wait of a process for another")


class AdamConfig(_Section):
    """Adam for one network."""

    learning_rate: PositiveNumber = Field(default=2e-4, description="step size")
    betas: tuple[Beta, Beta] = Field(default=(0.0, 0.99), description="decay of the two running averages")
    eps: PositiveNumber = Field(default=1e-8, description="added to the denominator")


class OptimizerConfig(_Section):
    """The optimizers of the two networks."""

    discriminator: AdamConfig = Field(default=AdamConfig(), description="Adam of the discriminator")
    generator: AdamConfig = Field(default=AdamConfig(), description="Adam of the generator")


class EmaConfig(_Section):
    """The running average of the generator's weights, which samples are drawn from."""

    half_life_images: Images = Field(default=10_000, description="images after which a weight counts half")
    rampup: PositiveNumber | None = Field(default=0.05, description="half life is at most this times images seen")


class CheckpointConfig(_Section):
    """What a run leaves behind to be resumed from."""

    every_images: Images = Field(default=100_000, description="images between checkpoints; the end always has one")
    keep: Annotated[WholeNumber, Field(ge=2)] = Field(default=2, description="newest checkpoints kept, at least 2")


class LogConfig(_Section):
    """What people look at during a run."""

    every_images: Images = Field(default=5_000, description="images between lines of numbers")
    samples_every_images: Images = Field(default=50_000, description="images between sample grids")
    num_samples: Count = Field(default=64, description="images in a sample grid")
    tensorboard: TensorBoard = Field(default="auto", description="auto: written when tensorboard is installed")


class MemberConfig(_Section):
    """One discriminator beside the first."""

    name: RunName = Field(description="name of its statistics and of its files in checkpoints")
    network: DiscriminatorConfig = Field(default=DiscriminatorConfig(), description="as the section discriminator")
    loss: LossKind = Field(default="non_saturating", description="its adversarial loss, and the generator's against it")
    penalties: tuple[PenaltyConfig, ...] = Field(default=(), description="gradient penalties on it")
    optimizer: AdamConfig = Field(default=AdamConfig(), description="its Adam")
    parallel: EngineConfig = Field(default=EngineConfig(), description="its engine")


class EnsembleConfig(_Section):
    """Several discriminators against one generator. The first is what the sections `discriminator`, ... describe."""

    members: tuple[MemberConfig, ...] = Field(default=(), description="discriminators beside the first")
    combination: Combination = Field(default="mean", description="of the generator's losses against them, per image")
    num_drawn: Count | None = Field(default=None, description="of random: drawn for each generator update; null: 1")


class RunConfig(_Section):
    """Everything that decides what a run does."""

    name: RunName = Field(description="name of the preset or file; run folders are called after it")
    run_dir: Text | None = Field(default=None, description="folder of the run; null: the next free runs/NAME-NNN")
    seed: NonNegativeCount = Field(default=0, description="every random number follows from it")
    total_images: Images = Field(description="length of training, in real images shown to the discriminator")
    batch_images: BatchImages = Field(description="images per update, over all processes")
    micro_batch_images: BatchImages | None = Field(default=None, description="images per pass, saves memory; null: all")
    precision: Precision = Field(
        default="auto", description="auto: bf16 where a measurement at the start finds it faster"
    )
    device: Device = Field(default="auto", description="auto: cuda when there is one")
    profile: Switch = Field(default=False, description="write a Chrome trace of some steps into the run folder")
    data: DataConfig = Field(description="where the images come from")
    generator: GeneratorConfig = Field(default=GeneratorConfig(), description="the network that makes images")
    discriminator: DiscriminatorConfig = Field(default=DiscriminatorConfig(), description="the network that judges")
    objective: ObjectiveConfig = Field(default=ObjectiveConfig(), description="what the networks minimize")
    penalties: tuple[PenaltyConfig, ...] = Field(default=(), description="gradient penalties on the discriminator")
    ensemble: EnsembleConfig = Field(default=EnsembleConfig(), description="further discriminators")
    schedule: ScheduleConfig = Field(default=ScheduleConfig(), description="who is updated when")
    parallel: ParallelConfig = Field(default=ParallelConfig(), description="how work is spread over processes")
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="the optimizers of both networks")
    ema: EmaConfig = Field(default=EmaConfig(), description="running average of the generator's weights")
    checkpoint: CheckpointConfig = Field(default=CheckpointConfig(), description="what a run can be resumed from")
    log: LogConfig = Field(default=LogConfig(), description="what people look at during a run")

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = tuple(_rules(self))
        if broken:
            text = "; ".join(f"{'.'.join(rule.keys[0])}={rule.value} {rule.text}" for rule in broken)
            raise PydanticCustomError("broken_rules", "{text}", {"text": text, "rules": broken})
        return self


class BrokenRule(NamedTuple):
    """A rule between keys that does not hold: `keys[0]` with its value breaks it, the others have a part in it."""

    keys: tuple[tuple[str, ...], ...]
    value: object
    text: str


def _rules(config: RunConfig) -> Iterator[BrokenRule]:
    """The rules between keys that `config` breaks."""
    batch, micro = config.batch_images, config.micro_batch_images
    if micro is not None and batch % micro:
        text = f"must divide batch_images={batch}; nearest: {_nearest_divisors(batch, micro)}"
        yield BrokenRule((("micro_batch_images",), ("batch_images",)), micro, text)
    if config.total_images < batch:
        text = f"must be at least batch_images={batch}"
        yield BrokenRule((("total_images",), ("batch_images",)), config.total_images, text)
    if config.data.num_classes is not None and not config.data.labels:
        text = "needs data.labels=true; set that, or data.num_classes=null"
        yield BrokenRule((("data", "num_classes"), ("data", "labels")), config.data.num_classes, text)
    yield from _rules_of_network(config.generator, ("generator",))
    yield from _rules_of_network(config.discriminator, ("discriminator",))
    yield from _rules_of_penalties(config.penalties, ("penalties",))
    for index, member in enumerate(config.ensemble.members):
        path = ("ensemble", "members", str(index))
        yield from _rules_of_network(member.network, (*path, "network"))
        yield from _rules_of_penalties(member.penalties, (*path, "penalties"))
    yield from _rules_of_ensemble(config.ensemble)
    yield from _rules_of_schedule(config)


def _rules_of_network(network: GeneratorConfig | DiscriminatorConfig, path: tuple[str, ...]) -> Iterator[BrokenRule]:
    if network.channels > network.max_channels:
        text = f"must be at most {'.'.join(path)}.max_channels={network.max_channels}"
        yield BrokenRule(((*path, "channels"), (*path, "max_channels")), network.channels, text)
    if isinstance(network, GeneratorConfig) or network.spectral_norm or network.spectral_norm_iterations == 1:
        return
    text = f"needs {'.'.join(path)}.spectral_norm=true; set that, or leave it out"
    keys = ((*path, "spectral_norm_iterations"), (*path, "spectral_norm"))
    yield BrokenRule(keys, network.spectral_norm_iterations, text)


def _rules_of_penalties(penalties: tuple[PenaltyConfig, ...], path: tuple[str, ...]) -> Iterator[BrokenRule]:
    """A mode must be able to compute its penalty, and every kind stands once."""
    kinds = [penalty.kind for penalty in penalties]
    for index, penalty in enumerate(penalties):
        item = (*path, str(index))
        kind = (*item, "kind")
        if penalty.sigma != PenaltyConfig.model_fields["sigma"].default and penalty.mode != "approximate":
            text = f"is not read by {'.'.join(item)}.mode={penalty.mode}; leave it out, or use the mode approximate"
            yield BrokenRule(((*item, "sigma"), (*item, "mode")), penalty.sigma, text)
        if penalty.mode == "approximate" and penalty.kind in {"wgan_gp", "wgan_lp"}:
            text = f"estimates |gradient|^2, of which {penalty.kind} is no function; use double or dual"
            yield BrokenRule(((*item, "mode"), kind), penalty.mode, text)
        first = kinds.index(penalty.kind)
        if first < index:
            text = f"is also the kind of {'.'.join(path)}.{first}; list every kind once"
            yield BrokenRule((kind,), penalty.kind, text)


def _rules_of_ensemble(ensemble: EnsembleConfig) -> Iterator[BrokenRule]:
    names = [FIRST_DISCRIMINATOR, *(member.name for member in ensemble.members)]
    for index, name in enumerate(names):
        if names.index(name) < index:
            text = f"is taken; choose another ({FIRST_DISCRIMINATOR} is the discriminator beside the list)"
            yield BrokenRule((("ensemble", "members", str(index - 1), "name"),), name, text)
    section = ("ensemble", "combination")
    if ensemble.combination != "mean" and not ensemble.members:
        text = "needs several discriminators; list the others in ensemble.members"
        yield BrokenRule((section,), ensemble.combination, text)
    drawn = ("ensemble", "num_drawn")
    if ensemble.num_drawn is not None and ensemble.combination != "random":
        text = "is only read by ensemble.combination=random; set that, or ensemble.num_drawn=null"
        yield BrokenRule((drawn, section), ensemble.num_drawn, text)
    elif ensemble.num_drawn is not None and ensemble.num_drawn > len(names):
        text = f"must be at most the number of discriminators, {len(names)}"
        yield BrokenRule((drawn,), ensemble.num_drawn, text)


def _rules_of_schedule(config: RunConfig) -> Iterator[BrokenRule]:
    """What the policy cannot do, and keys that it does not read, which would do nothing."""
    schedule = config.schedule
    for index, penalty in enumerate(config.penalties):
        if schedule.policy == "joint" and penalty.mode == "dual" and penalty.kind == "r2":
            text = "leaves schedule.policy=joint no graph of the fakes for the generator; use double, or alternate"
            yield BrokenRule((("penalties", str(index), "mode"), ("schedule", "policy")), penalty.mode, text)
    if schedule.policy == "joint" and config.ensemble.members:
        text = "takes the generator's gradients from one discriminator; use alternate, or ensemble.members=[]"
        yield BrokenRule((("schedule", "policy"), ("ensemble", "members")), schedule.policy, text)
    if schedule.policy == "joint" and config.parallel.overlap:
        text = "has nothing to overlap with schedule.policy=joint, whose gradients all come at the end; leave it out"
        yield BrokenRule((("parallel", "overlap"), ("schedule", "policy")), True, text)
    if schedule.policy == "split":
        yield from _rules_of_split(config)
    for key in dict.fromkeys(key for keys in KEYS_OF_POLICIES.values() for key in keys):
        value, default = getattr(schedule, key), ScheduleConfig.model_fields[key].default
        if key not in KEYS_OF_POLICIES[schedule.policy] and value != default:
            readers = " or ".join(policy for policy, keys in KEYS_OF_POLICIES.items() if key in keys)
            text = f"is not read by schedule.policy={schedule.policy}; leave it out, or use the policy {readers}"
            yield BrokenRule((("schedule", key), ("schedule", "policy")), value, text)


def _rules_of_split(config: RunConfig) -> Iterator[BrokenRule]:
    """What cannot be divided between roles."""
    policy = ("schedule", "policy")
    if config.ensemble.members:
        text = "publishes one discriminator; use alternate, or ensemble.members=[]"
        yield BrokenRule((policy, ("ensemble", "members")), "split", text)
    if config.parallel.overlap:
        text = "has no other network's work to overlap with on a process of schedule.policy=split; leave it out"
        yield BrokenRule((("parallel", "overlap"), policy), True, text)
    if config.schedule.shares == "measured":
        text = "would make the roles of schedule.policy=split wait for each other; use equal, or give a list"
        yield BrokenRule((("schedule", "shares"), policy), "measured", text)
    if config.schedule.shares not in ("equal", "measured") and config.schedule.discriminator_ranks == "auto":
        text = "does not fit a list in schedule.shares, whose parts belong to roles of known sizes; give a number"
        yield BrokenRule((("schedule", "discriminator_ranks"), ("schedule", "shares")), "auto", text)
    for key in ("discriminator_start_images", "generator_start_images"):
        if value := getattr(config.schedule, key):
            text = "leaves the processes of one role of schedule.policy=split idle until then; set it to 0"
            yield BrokenRule((("schedule", key), policy), value, text)


def _nearest_divisors(number: int, wanted: int) -> str:
    """The divisors of `number` around `wanted`, which is not one: "20 or 25" for 100 and 24, "100" for 100 and 300."""
    below = next(divisor for divisor in range(min(wanted, number), 0, -1) if number % divisor == 0)
    above = next((divisor for divisor in range(wanted, number + 1) if number % divisor == 0), None)
    return f"{below}" if above is None else f"{below} or {above}"
