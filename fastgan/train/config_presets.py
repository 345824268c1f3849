"""The presets inside the package: YAML files that begin with a comment of one line, their summary."""

from importlib import resources
from importlib.resources.abc import Traversable

from fastgan.errors import ConfigError, did_you_mean

_SUFFIX = ".yaml"


def _folder() -> Traversable:
    return resources.files("fastgan") / "presets"


def preset_names() -> list[str]:
    """All presets, sorted."""
    return sorted(file.name.removesuffix(_SUFFIX) for file in _folder().iterdir() if file.name.endswith(_SUFFIX))


def preset_text(name: str) -> str:
    """The YAML of the preset `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    names = preset_names()
    if name in names:
        return (_folder() / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    if name.endswith((".yaml", ".yml")):
        raise ConfigError(f"unknown preset {name!r}; to read a file, write --config {name}")
    remedy = did_you_mean(name, names) or f"; the presets are {', '.join(names)}"
    raise ConfigError(f"unknown preset {name!r}{remedy}")


def preset_summary(name: str) -> str:
    """What the preset is for, in one line.

    Raises:
        ConfigError: there is no preset of that name.
    """
    return preset_text(name).partition("\n")[0].removeprefix("#").strip()
