"""Numbers with units, as people write them: 450GB/s, 3us, 13ms+0.4ms."""

import math
import re

from fastgan.errors import ConfigError
from fastgan.simulate.cost import Part

_BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "Gb": 1e9 / 8}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_NUMBER = r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"


def bytes_per_second(text: str, *, option: str) -> float:
    """450GB/s is 4.5e11; 400Gb/s, in bits, is 5e10.

    Raises:
        ConfigError: if it is nothing of the kind, or 0.
    """
    example = "450GB/s or 400Gb/s"
    rate = _parse(text.removesuffix("/s"), _BYTES, option=option, example=example)
    if rate == 0:
        raise ConfigError(f"{option}={text} must be above 0, or nothing ever arrives; write {example}")
    return rate


def seconds(text: str, *, option: str) -> float:
    """3us is 3e-6.

    Raises:
        ConfigError: if it is nothing of the kind.
    """
    return _parse(text, _SECONDS, option=option, example="3us or 0.4ms")


def pass_seconds(text: str, *, option: str) -> Part:
    """13ms+0.4ms: 13 milliseconds for a pass, and 0.4 for each of its images.

    Raises:
        ConfigError: if it is nothing of the kind.
    """
    fixed, plus, per_image = text.partition("+")
    if not plus:
        raise ConfigError(f"{option}={text} must be the time of a pass plus that of each image; write 13ms+0.4ms")
    return Part(seconds(fixed.strip(), option=option), seconds(per_image.strip(), option=option))


def _parse(text: str, units: dict[str, float], *, option: str, example: str) -> float:
    match = re.fullmatch(_NUMBER + "([A-Za-z]+)", text.replace(" ", ""))
    if match is None or match[2] not in units:
        raise ConfigError(f"{option}={text} must be a number and one of {', '.join(units)}; write {example}")
    value = float(match[1]) * units[match[2]]
    if not math.isfinite(value):
        raise ConfigError(f"{option}={text} must be finite; write {example}")
    return value
