"""`fastgan sample`: a grid of images from a run."""

from pathlib import Path
from typing import Annotated

import typer

from fastgan.errors import ConfigError
from fastgan.train.log import say

_MAX_IMAGES = 10_000


def sample(  # noqa: PLR0917 - the command line passes all of them by name
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/digits-000.")],
    num: Annotated[int, typer.Option(help="Number of images.")] = 64,
    seed: Annotated[int, typer.Option(help="Other seeds give other images.")] = 0,
    label: Annotated[int | None, typer.Option(help="Class of all images; by default all classes in turn.")] = None,
    columns: Annotated[int | None, typer.Option(help="Images in a row; by default nearly square.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="Where the picture goes.")] = Path("samples.png"),
) -> None:
    """Draw images from the averaged generator of a run's newest checkpoint."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out} must end in .png, the only format that is written")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    for name, value, least in (("num", num, 1), ("columns", 1 if columns is None else columns, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"--{name} {value} must be at least {least}")
    if num > _MAX_IMAGES:
        raise ConfigError(f"--num {num} must be at most {_MAX_IMAGES:,}: they go into one picture; use other seeds")
    from fastgan.train.grid import save_grid
    from fastgan.train.sample import generate, load_generator

    loaded = load_generator(run)
    images = generate(loaded.generator, num_images=num, seed=seed, label=label)
    save_grid(images, out, columns=columns)
    say(f"{out}: {num} images, generator at {loaded.images_seen:,} images seen")
