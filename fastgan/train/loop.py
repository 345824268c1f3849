"""The training loop, and what comes before and after it."""

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan.data import DIGITS, ImageDataset, Loader, open_dataset
from fastgan.dist import ALONE, World, check_same, from_main, process_group, world_from_environment
from fastgan.errors import CheckpointError, ConfigError, TrainingError
from fastgan.models import DCGANGenerator
from fastgan.objectives import LOSSES
from fastgan.parallel import SingleEngine
from fastgan.schedule import Balance, Policy, Split
from fastgan.train.build import build_state
from fastgan.train.build_schedule import build_schedule
from fastgan.train.checkpoint import Checkpoint, RunFacts, load_newest_checkpoint, save_checkpoint, set_aside_newer
from fastgan.train.config import RunConfig, dump_config
from fastgan.train.files import make_folder
from fastgan.train.grid import grid_array, save_png
from fastgan.train.interrupt import Interrupt
from fastgan.train.log import quiet, say, warn
from fastgan.train.pace import Pace
from fastgan.train.plots import plot_losses
from fastgan.train.precision import DTYPES, choose_device, choose_precision
from fastgan.train.progress import RunLog, SilentLog, check_tensorboard
from fastgan.train.role_log import numbers_of_both_roles, rewind_reads
from fastgan.train.role_times import choose_roles
from fastgan.train.run_folder import RunLock, create_run_folder, write_run_facts
from fastgan.train.sample import generate
from fastgan.train.split_step import SplitStep
from fastgan.train.state import TrainState
from fastgan.train.step import TrainStep
from fastgan.train.step_choice import make_agreement, step_class
from fastgan.train.step_statistics import FiniteGuard, Statistics, diverged
from fastgan.train.trace import NoTrace, Trace, num_steps_to_trace


@dataclass(frozen=True)
class Run:
    """A run that is ready to train: its state, its data, and what its checkpoints must share."""

    config: RunConfig
    run_dir: Path
    schedule: Policy
    state: TrainState
    dataset: ImageDataset
    device: torch.device
    facts: RunFacts
    world: World = ALONE


def train(config: RunConfig, *, resume: Path | None = None) -> int:
    """Trains until `total_images`, or until Ctrl-C or SIGTERM, which leave a checkpoint.

    Under a launcher such as torchrun every process calls it; they train one run together.

    Args:
        config: of the run; with `resume`, what `run_folder.resume_config` returned.
        resume: folder of the run to continue, or None for a new one.
    Returns:
        The process's exit code: 0, or 128 + signal.
    Raises:
        FastganError: in one line, what the user has to repair; earlier checkpoints are unharmed.
    """
    try:
        world = world_from_environment()
        device = choose_device(config.device, world)
        group = process_group(world, device=device, timeout_seconds=config.parallel.timeout_seconds)
        with quiet(not world.is_main), group:
            return _train(config, resume=resume, world=world)
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        size = f"batch_images={config.batch_images}, micro_batch_images={config.micro_batch_images}"
        remedy = "give a smaller micro_batch_images, or smaller networks"
        raise TrainingError(f"out of memory with {size}; {remedy}") from error


def _train(config: RunConfig, *, resume: Path | None, world: World) -> int:
    with ExitStack() as locks:
        if resume is not None and world.is_main:
            locks.enter_context(RunLock(resume))
        run = prepare_run(config, resume=resume, world=world)
        if resume is None and world.is_main:
            locks.enter_context(RunLock(run.run_dir))
        _say_what_runs(run)
        if run.state.images_seen >= config.total_images:
            say(f"already at {run.state.images_seen:,} images; to train longer, give a larger total_images")
            return 0
        if world.is_main:
            write_run_facts(run.run_dir, run.config, precision=run.facts.precision, images_seen=run.state.images_seen)
        with Interrupt() as interrupt:
            signal = run_loop(run, interrupt=interrupt)
        if world.is_main:
            plot_losses(run.run_dir)
    if signal:
        say(f"stopped at {run.state.images_seen:,} images; to go on: fastgan train --resume {run.run_dir}")
    else:
        say(f"done: {run.run_dir / 'samples.png'}, {run.run_dir / 'losses.png'}")
    return 128 + signal if signal else 0


def _say_what_runs(run: Run) -> None:
    sizes = {name: num_weights(network) for name, (network, _) in run.state.trained.items()}
    networks = " and ".join(f"{name} {size:,}" for name, size in sizes.items())
    say(f"run folder {run.run_dir}")
    num_bad = run.dataset.num_bad_images
    images = f"{run.dataset.num_images:,} images" + (f" ({num_bad:,} of them unreadable)" if num_bad else "")
    # Where two formats are nearly equally fast the load decides, and the same command may not give the same run.
    hint = f" (precision=auto; precision={run.facts.precision} repeats it)" if run.config.precision == "auto" else ""
    say(
        f"{images}, {networks} parameters, "
        f"{run.facts.precision}{hint} on {run.device}"
        + (f", {run.world.num_ranks} processes" if run.world.is_launched else "")
    )


def num_weights(network: nn.Module) -> int:
    """Of the whole network, of which a rank may hold a part: ZeRO-3 leaves its parameters empty."""
    return sum(int(getattr(parameter, "ds_numel", parameter.numel())) for parameter in network.parameters())


def prepare_run(config: RunConfig, *, resume: Path | None, world: World = ALONE) -> Run:
    """Opens the data, builds or restores the state, and makes the run folder; nothing is written before all is checked.

    Raises:
        FastganError: whatever is wrong with configuration, data, folder or checkpoint.
    """
    device = choose_device(config.device, world)
    check_tensorboard(config.log.tensorboard)
    schedule = build_schedule(config, num_ranks=world.num_ranks)
    checkpoint = None if resume is None else load_newest_checkpoint(resume, on_damage=warn)
    dataset = _open_data(config)
    config = config.model_copy(update={"data": config.data.model_copy(update={"path": _absolute(config.data.path)})})
    if checkpoint is None:
        precision = from_main(world, lambda: choose_precision(config, num_classes=dataset.num_classes, device=device))
    else:
        precision = checkpoint.facts.precision
    facts = RunFacts(precision=precision, dataset_digest=dataset.digest, num_classes=dataset.num_classes)
    if checkpoint is not None and facts != checkpoint.facts:
        raise CheckpointError(
            f"data.path={config.data.path} holds other images or labels than the run was trained on; "
            "give the same data, or start a new run"
        )
    _check_ranks_agree(world, config, dataset, checkpoint)
    kind: dict[str, Any] = {"num_classes": dataset.num_classes, "dtype": DTYPES[precision], "device": device}
    roles = None
    if isinstance(schedule, Split):
        roles = choose_roles(config, world=world, **kind)
        schedule = roles.policy
    state = build_state(config, world=world, roles=roles, checkpoint=checkpoint, **kind)
    if checkpoint is not None and world.is_main:
        set_aside_newer(checkpoint.path.parents[1], checkpoint)
    run_dir = Path(from_main(world, lambda: str(create_run_folder(config) if resume is None else resume)))
    return Run(config, run_dir, schedule, state, dataset, device, facts, world)


def _check_ranks_agree(world: World, config: RunConfig, dataset: ImageDataset, checkpoint: Checkpoint | None) -> None:
    """Ranks that train different things would not notice: they would average them."""
    values = {
        "the configuration": hashlib.sha256(dump_config(config).encode()).hexdigest(),
        "the images": dataset.digest,
        "the newest checkpoint": str(checkpoint.schedule.images_seen if checkpoint else None),
    }
    check_same(world, values, remedy="give all machines the same command, the same data and one shared run folder")


def run_loop(run: Run, *, interrupt: Interrupt) -> int:
    """Steps until the end or a signal, but once at least; ends with samples and a checkpoint.

    Returns:
        The number of the signal, 0 for none.
    Raises:
        TrainingError: if a loss is not finite; the state is then not saved.
    """
    config, schedule, state, world = run.config, run.schedule, run.state, run.world
    statistics, guard = Statistics(), FiniteGuard(world)
    pace = _measure_pace(run)
    agreement = make_agreement(world, state.roles, signal=lambda: interrupt.received or 0)
    log, trace = _open_log(run), _open_trace(run)
    loader = Loader(
        run.dataset,
        seed=config.seed,
        mirror=config.data.mirror,
        num_workers=config.data.num_workers,
        device=run.device,
        memory_format=torch.channels_last,
    )
    step = step_class(schedule)(
        state,
        loader=loader,
        seed=config.seed,
        latent_dim=config.generator.latent_dim,
        ema=config.ema,
        device=run.device,
        agreement=agreement,
        overlap=config.parallel.overlap,
        trace=trace,
        num_drawn=(config.ensemble.num_drawn or 1) if config.ensemble.combination == "random" else None,
        generator_reads_batch=_generator_reads_batch(run),
    )
    with log, loader, trace:
        finished = False
        while not finished:
            # One step; the next one's images are decoded meanwhile.
            before = state.images_seen
            plan = schedule.plan(state.schedule, world.rank)
            following = schedule.advance(state.schedule)
            if following.images_seen < config.total_images:
                step.prefetch(schedule.plan(following, world.rank))
            with trace.step(plan.step):
                result = step.run(plan)
            guard.watch(result, step=plan.step, images_seen=before)
            if schedule.listens(plan.state):
                following = schedule.advance(plan.state, agreement.agree(plan, result, pace))
            state.schedule = following
            statistics.merge(result)
            log.advance(state.images_seen)

            # What is due. A signal counts from here on, so that the last step has all of it.
            signal = agreement.signal
            finished = state.images_seen >= config.total_images or signal > 0
            intervals = config.log.every_images, config.checkpoint.every_images, config.log.samples_every_images
            tick_due, checkpoint_due, samples_due = (
                finished or _is_due(before, state.images_seen, every=every) for every in intervals
            )
            if tick_due or checkpoint_due or samples_due:
                step.meet(statistics)
                guard.check()
            if tick_due:
                log.tick(state.images_seen, _numbers(run, statistics, step))
                statistics = Statistics()
            if checkpoint_due:
                save_checkpoint(run.run_dir, state, facts=run.facts, keep=config.checkpoint.keep, world=world)
            if samples_due:
                write_samples(run, log)
    return signal


def _numbers(run: Run, statistics: Statistics, step: TrainStep) -> dict[str, float]:
    """What a tick says: means over all ranks, and what the schedule has done. All ranks call it together."""
    if isinstance(step, SplitStep):
        return numbers_of_both_roles(step, statistics, run.run_dir, run.world)
    numbers = statistics.read(run.world) | step.agreement.skipped()
    if isinstance(run.schedule, Balance):
        # A schedule that decides as it goes.
        numbers["discriminator_updates"] = float(run.state.schedule.discriminator_updates)
    return numbers


def _generator_reads_batch(run: Run) -> bool:
    """Whether generator updates need labels, or real images to compare with."""
    losses = [run.config.objective.loss, *(member.loss for member in run.config.ensemble.members)]
    return run.facts.num_classes > 0 or any(LOSSES[loss].generator_reads_real for loss in losses)


def _measure_pace(run: Run) -> Pace | None:
    """What shares follow; None where they do not."""
    if run.schedule.shares != "measured":
        return None
    engines = run.state.generator_engine, run.state.discriminator_engine
    # `choose_engines` refuses others: they wait for each other in forward passes.
    assert all(isinstance(engine, SingleEngine) for engine in engines)
    return Pace(*(engine.objective for engine in engines if isinstance(engine, SingleEngine)), device=run.device)


def _open_log(run: Run) -> RunLog | SilentLog:
    if not run.world.is_main:
        return SilentLog()
    rewind_reads(run.run_dir, run.state.schedule.step)
    return RunLog(
        run.run_dir,
        total_images=run.config.total_images,
        start_images=run.state.images_seen,
        tensorboard=run.config.log.tensorboard,
    )


def _open_trace(run: Run) -> Trace | NoTrace:
    if not run.config.profile:
        return NoTrace()
    num_steps = num_steps_to_trace(run.config)
    return Trace(run.run_dir, num_steps=num_steps, device=run.device, world=run.world)


def write_samples(run: Run, log: RunLog | SilentLog) -> None:
    """Images of the averaged generator from fixed latents: `samples.png`, and a copy named after the clock.

    Rank 0 makes and writes them; all ranks call it, since it may have to be given the average.

    Raises:
        TrainingError: if an image is not finite; the earlier samples stay.
        RunFolderError: if they cannot be written.
    """
    roles, average = run.state.roles, run.state.generator_ema
    generator = average if roles is None else roles.bring_average(average, run.device)
    if not run.world.is_main:
        return
    assert isinstance(generator, DCGANGenerator)
    images = generate(generator, num_images=run.config.log.num_samples, seed=run.config.seed)
    if not images.isfinite().all():
        raise diverged("a sample is not finite", images_seen=run.state.images_seen)
    picture = grid_array(images)
    folder = make_folder(run.run_dir / "samples")
    save_png(picture, folder / f"{run.state.images_seen:09d}.png")
    save_png(picture, run.run_dir / "samples.png")
    log.image(run.state.images_seen, "samples", picture)


def _open_data(config: RunConfig) -> ImageDataset:
    data = config.data
    if data.path is None:
        remedy = "give data.path=FOLDER, data.path=FILE.zip or data.path=digits"
        raise ConfigError(f"data.path is not set and the preset {config.name} has no built-in data; {remedy}")
    return open_dataset(
        data.path,
        resolution=data.resolution,
        channels=data.channels,
        fit=data.fit,
        labels=data.labels,
        num_classes=data.num_classes,
        max_bad_fraction=data.max_bad_fraction,
        cache_bytes=data.cache_bytes,
        num_workers=data.num_workers,
        on_warning=warn,
    )


def _absolute(path: str | None) -> str | None:
    """The path as it is found from any folder; the name of the built-in data stays."""
    return path if path in (None, DIGITS) else str(Path(path).expanduser().resolve())


def _is_due(before: int, after: int, *, every: int) -> bool:
    """Whether the clock passed a multiple of `every` images."""
    return after // every > before // every
