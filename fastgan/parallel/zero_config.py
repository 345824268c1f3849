"""DeepSpeed's configuration: what fastgan sets itself, what a user's JSON may add, and what is refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastgan.errors import ConfigError

# Keys of a user's JSON that change speed, memory or reports only, and what their values are; float: any number, int: a
# whole one.
_FREE: dict[str, type] = {
    "comms_logger": dict,
    "dump_state": bool,
    "flops_profiler": dict,
    "memory_breakdown": bool,
    "steps_per_print": float,
    "timers": dict,
    "wall_clock_breakdown": bool,
}
_FREE_ZERO: dict[str, type] = {
    "allgather_bucket_size": int,
    "allgather_partitions": bool,
    "contiguous_gradients": bool,
    "overlap_comm": bool,
    "reduce_bucket_size": int,
    "reduce_scatter": bool,
    "round_robin_gradients": bool,
    "stage3_max_live_parameters": int,
    "stage3_max_reuse_distance": int,
    "stage3_param_persistence_threshold": int,
    "stage3_prefetch_bucket_size": int,
    "sub_group_size": int,
}
# Of those, sizes of the parts that something is cut into.
_POSITIVE = {"zero_optimization.reduce_bucket_size", "zero_optimization.sub_group_size"}
_WORDS = {
    dict: "a JSON object",
    bool: "true or false",
    float: "a number that is not negative",
    int: "a whole number that is not negative",
}
_DATA_TYPES = ("fp32", "bf16", "fp16")
# Numbers in a buffer in which gradients are reduced, the most that is taken unasked.
_LARGEST_BUCKET = 50_000_000
# Keys that change the numbers: allowed, and said.
_WARNED = {
    "gradient_clipping": "gradients are clipped, which other engines do not do",
    "communication_data_type": "gradients are rounded before they are averaged",
}
# Keys that fastgan decides; "auto" leaves them to it.
_OURS = {
    "train_batch_size": "batch_images",
    "train_micro_batch_size_per_gpu": "micro_batch_images",
    "gradient_accumulation_steps": "micro_batch_images",
    "optimizer": "optimizer",
    "bf16": "precision",
}


def deepspeed_settings(stage: int, user: Mapping[str, Any], *, on_warning: Callable[[str], None]) -> dict[str, Any]:
    """What `deepspeed.initialize` gets.

    One micro-batch per update as DeepSpeed counts, since fastgan's step weighs and accumulates; no clipping unless
    asked for (DeepSpeed's own default is 1.0); a torch optimizer, because DeepSpeed's "Adam" is AdamW.

    Args:
        stage: of ZeRO, 0 to 3.
        user: the content of the user's JSON, {} without one.
        on_warning: is told of each key that changes the numbers.
    Raises:
        ConfigError: for a key that is not known to leave the training as it is, or a value of another type.
    """
    zero = dict(user.get("zero_optimization", {}))
    if zero.pop("stage", stage) not in {stage, "auto"}:
        theirs = user["zero_optimization"]["stage"]
        raise ConfigError(
            f"parallel.deepspeed_config: zero_optimization.stage={theirs} contradicts stage {stage}; remove it"
        )
    extra = _checked(user, on_warning=on_warning)
    for key, value in zero.items():
        if key not in _FREE_ZERO:
            _refuse(f"zero_optimization.{key}")
        _check_value(f"zero_optimization.{key}", value, _FREE_ZERO[key])
    ours = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
    return {**ours, **extra, "zero_optimization": {**zero, "stage": stage}}


def fitted(settings: Mapping[str, Any], *, num_parameters: int) -> dict[str, Any]:
    """`settings` with buffers that the gradients of so many parameters fill, where the user's JSON names no size.

    DeepSpeed's own default is 500 million numbers, 2 GB for each of two networks however small they are.
    """
    size = max(1, min(_LARGEST_BUCKET, num_parameters))
    return {**settings, "zero_optimization": {"reduce_bucket_size": size, **settings["zero_optimization"]}}


def _checked(user: Mapping[str, Any], *, on_warning: Callable[[str], None]) -> dict[str, Any]:
    """The keys of the user's JSON beside `zero_optimization`, each one free or warned about."""
    extra = {key: value for key, value in user.items() if key != "zero_optimization"}
    for key in [*extra]:
        if key in _OURS and extra[key] == "auto":
            del extra[key]
        elif key in _OURS:
            raise ConfigError(f"parallel.deepspeed_config: {key} is set by fastgan's key {_OURS[key]}; remove it")
        elif key in _WARNED:
            _check_warned(key, extra[key])
            if extra[key]:
                on_warning(f"parallel.deepspeed_config: {key}={extra[key]}: {_WARNED[key]}")
        elif key not in _FREE:
            _refuse(key)
        else:
            _check_value(key, extra[key], _FREE[key])
    return extra


def _check_value(key: str, value: object, kind: type) -> None:
    is_good = isinstance(value, kind)
    if kind in (int, float):
        is_good = isinstance(value, int | float) and not isinstance(value, bool) and _is_in_range(key, value, kind)
    if not is_good:
        rule = "a positive whole number" if key in _POSITIVE else _WORDS[kind]
        raise ConfigError(f"parallel.deepspeed_config: {key}={value!r} must be {rule}; correct or remove it")


def _is_in_range(key: str, value: float, kind: type) -> bool:
    # 5e8 is a whole number.
    is_whole = kind is float or float(value).is_integer()
    return is_whole and (value > 0 if key in _POSITIVE else value >= 0)


def _check_warned(key: str, value: object) -> None:
    if key == "gradient_clipping":
        _check_value(key, value, float)
    elif value not in (None, *_DATA_TYPES):
        known = ", ".join(_DATA_TYPES)
        raise ConfigError(f"parallel.deepspeed_config: {key}={value!r} must be one of {known}; correct or remove it")


def read_deepspeed_json(path: str | None) -> dict[str, Any]:
    """The user's JSON, {} for None.

    Raises:
        ConfigError: if it cannot be read or is no JSON object.
    """
    if path is None:
        return {}
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"parallel.deepspeed_config={path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"parallel.deepspeed_config={path}: not valid JSON: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("zero_optimization", {}), dict):
        raise ConfigError(f"parallel.deepspeed_config={path}: the file and its zero_optimization must be JSON objects")
    return values


def _refuse(key: str) -> None:
    known = ", ".join(sorted([*_FREE, *_WARNED, "zero_optimization"]))
    raise ConfigError(
        f"parallel.deepspeed_config: {key} would or may change the training; remove it; "
        f"keys that may be given: {known}, and of zero_optimization: {', '.join(sorted(_FREE_ZERO))}"
    )
