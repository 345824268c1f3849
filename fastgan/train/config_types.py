"""The types of a configuration's keys: what a single value may be, beside the models that put keys together."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Strict
from pydantic_core import PydanticCustomError

# Of what is counted. Upper limits catch slips of the keyboard before they ask for more memory than there is.
_MOST = 2**20


def _whole_float_as_int(value: object) -> object:
    """2e6 and 64.0 are whole numbers that YAML reads as floats; everything else is left to the type's own check."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _choice_of_numbers(value: object) -> object:
    """As `_whole_float_as_int`; and true, which equals 1 in Python, becomes a text that is no valid choice."""
    return str(value).lower() if isinstance(value, bool) else _whole_float_as_int(value)


def _list_or_name(value: object) -> object:
    """A list, or one of the names; anything else is refused in one sentence instead of one for each possibility."""
    is_list = isinstance(value, list | tuple) and all(type(n) is int and 1 <= n <= _MOST for n in value)
    if is_list or value in ("equal", "measured"):
        return tuple(value) if isinstance(value, list) else value
    text = f"give equal, measured, or a list of whole numbers from 1 to {_MOST:,}, one for each process"
    raise PydanticCustomError("shares", "{text}", {"text": text})


def _number_or_auto(value: object) -> object:
    """A whole number, or auto."""
    value = _whole_float_as_int(value)
    if value == "auto" or (type(value) is int and 1 <= value <= _MOST):
        return value
    text = f"give auto, or a whole number from 1 to {_MOST:,}"
    raise PydanticCustomError("ranks", "{text}", {"text": text})


# Strict types: a bool is not a number, "yes" is not a bool, and text is not parsed a second time after YAML.
WholeNumber = Annotated[int, Strict(), BeforeValidator(_whole_float_as_int)]
Images = Annotated[WholeNumber, Field(ge=1, le=10**12)]
BatchImages = Annotated[WholeNumber, Field(ge=1, le=_MOST)]
Width = Annotated[WholeNumber, Field(ge=1, le=2**16)]
Count = Annotated[WholeNumber, Field(ge=1, le=_MOST)]
Percent = Annotated[WholeNumber, Field(ge=-100, le=100)]
NonNegativeCount = Annotated[WholeNumber, Field(ge=0, lt=2**63)]
PositiveNumber = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Beta = Annotated[float, Strict(), Field(ge=0, lt=1, allow_inf_nan=False)]
Fraction = Annotated[float, Strict(), Field(ge=0, lt=1, allow_inf_nan=False)]
Switch = Annotated[bool, Strict()]
# A path cannot hold a zero byte.
Text = Annotated[str, Strict(), Field(min_length=1, pattern=r"^[^\x00]*$")]
# Part of the run folder's name, hence no separators and no leading dot.
RunName = Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]

# Not checked against the processes here, which only the launcher knows.
Shares = Annotated[Literal["equal", "measured"] | tuple[Count, ...], BeforeValidator(_list_or_name)]
NumRanks = Annotated[Literal["auto"] | Count, BeforeValidator(_number_or_auto)]
Precision = Literal["auto", "fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
Resolution = Annotated[Literal[32, 64, 128], BeforeValidator(_choice_of_numbers)]
ImageChannels = Annotated[Literal[1, 3], BeforeValidator(_choice_of_numbers)]
Fit = Literal["exact", "pad", "crop", "resize"]
Architecture = Literal["dcgan"]
Normalization = Literal["pixel", "none"]
LossKind = Literal["non_saturating", "hinge", "wasserstein", "least_squares", "relativistic"]
PenaltyKind = Literal["r1", "r2", "wgan_gp", "wgan_lp", "zero_centered"]
PenaltyModeName = Literal["double", "dual", "approximate"]
SchedulePolicy = Literal["alternate", "joint", "balance", "split"]
Combination = Literal["mean", "max", "random"]
EngineKind = Literal["auto", "single", "flat", "ddp", "deepspeed", "fsdp2"]
Stage = Annotated[Literal[0, 1, 2, 3], BeforeValidator(_choice_of_numbers)]
Compression = Literal["none", "bf16"]
TensorBoard = Literal["auto", "on", "off"]
