"""Turns what pydantic found wrong into one line per problem: origin, key, value, rule, nearest valid choice."""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fastgan.errors import did_you_mean, nearest
from fastgan.train.config_models import BrokenRule
from fastgan.train.config_sources import MergedSources, Origin
from fastgan.train.config_yaml import KeyPath

_LONGEST_VALUE = 60

# Rules by pydantic's type of error; names in braces come from the error's context.
_RULES: Mapping[str, str] = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text; put it in quotes",
    "string_too_short": "must not be empty; write null for none",
    "string_pattern_mismatch": "may hold letters, digits, '_', '-' and '.' only, and must not begin with '-' or '.'",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:,}",
    "tuple_type": "must be a list in brackets",
    "too_long": "must have {max_length} items, not {actual_length}",
}
# What other programs call our keys, where the names do not resemble each other.
_USUAL_NAMES: Mapping[str, str] = {
    "lr": "learning_rate",
    "z_dim": "latent_dim",
    "epochs": "total_images",
    "iterations": "total_images",
    "steps": "total_images",
    "gpu": "device",
}
_SWITCH_SPELLINGS = {"true": ("yes", "y", "on", "1", "t"), "false": ("no", "n", "off", "0", "f")}


def problem_lines(error: ValidationError, *, model: type[BaseModel], sources: MergedSources) -> list[str]:
    """One line per problem, in the order of the sources and their lines.

    Args:
        error: what `model.model_validate(sources.values)` raised.
        model: the model of the whole configuration.
        sources: the values, which know where they were written.
    """
    problems: list[tuple[Origin, str]] = []
    for details in error.errors(include_url=False):
        path = tuple(str(part) for part in details["loc"])
        if details["type"] == "broken_rules":
            rules: tuple[BrokenRule, ...] = details["ctx"]["rules"]
            problems += [(sources.origin(*r.keys), f"{assignment(r.keys[0], r.value)} {r.text}") for r in rules]
        else:
            problems.append((sources.origin(path), _problem(path, details, model)))
    return [f"{origin}: {text}" for origin, text in sorted(problems, key=lambda problem: problem[0])]


def _problem(path: KeyPath, details: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong with the key `path`, without its origin."""
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden":
        return _unknown_key(path, model)
    if kind == "missing" and path[-1].isdigit():
        return f"{assignment(path[:-1], value)} has too few items; item {path[-1]} is missing"
    field = _field(path, model)
    if kind == "missing":
        return f"{'.'.join(path)} is missing: {field.description if field else ''}"
    return f"{assignment(path, value)} {_rule(path, details, model)}"


def _rule(path: KeyPath, details: ErrorDetails, model: type[BaseModel]) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    field = _field(path, model)
    if kind == "literal_error" and field:
        choices = _choices(field.annotation)
        return f"must be {_either(map(str, choices))}{_nearest_choice(value, choices)}"
    if kind == "model_type":
        section = _model_at(path, model)
        keys = ", ".join(section.model_fields) if section else ""
        return f"is a section, not a value; its keys are {keys}"
    rule = _RULES.get(kind, f"is not valid: {details['msg']}").format_map(context)
    if kind.endswith("_type") and field and type(None) in get_args(field.annotation):
        rule = rule.replace(";", " or null;") if ";" in rule else f"{rule} or null"
    if kind == "bool_type":
        meant = [word for word, spellings in _SWITCH_SPELLINGS.items() if str(value).lower() in (word, *spellings)]
        rule += f", did you mean {meant[0]}?" if meant else ""
    return rule


def _nearest_choice(value: object, choices: tuple[str | int, ...]) -> str:
    if isinstance(value, str):
        return did_you_mean(value, map(str, choices))
    if isinstance(value, int | float) and math.isfinite(value):
        numbers = [choice for choice in choices if isinstance(choice, int)]
        return f", did you mean {min(numbers, key=lambda number: abs(number - value))}?" if numbers else ""
    return ""


def _unknown_key(path: KeyPath, model: type[BaseModel]) -> str:
    """That the key does not exist, and which one is meant."""
    *parents, name = path
    text = f"{'.'.join(path)} is not a key"
    section = _model_at(tuple(parents), model)
    siblings = list(section.model_fields) if section else []
    known = list(_keys(model, ()))
    if tuple(name.split(".")) in known:
        return f"{text} in YAML; indent {name.rpartition('.')[2]!r} below the section {name.rpartition('.')[0]!r}"
    meant = [key for key in known if key[-1] == _USUAL_NAMES.get(name, name)]
    if not meant and (similar := nearest(name, siblings)):
        meant = [(*parents, similar)]
    if not meant and (similar := nearest(name, {key[-1] for key in known})):
        meant = [key for key in known if key[-1] == similar]
    if meant:
        return f"{text}, did you mean {_either(repr('.'.join(key)) for key in meant)}?"
    return f"{text}; the keys of {'.'.join(parents) or 'a configuration'} are {', '.join(siblings)}"


def _either(choices: Iterable[str]) -> str:
    """`a, b or c`."""
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def _keys(model: type[BaseModel], prefix: KeyPath) -> Iterator[KeyPath]:
    """All keys and sections of `model`, sections before what they hold; items of lists are left out."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        section = _section(field.annotation)
        if section:
            yield from _keys(section, (*prefix, name))


def _field(path: KeyPath, model: type[BaseModel]) -> FieldInfo | None:
    """The field at `path`, or None inside a list of plain values."""
    section = _model_at(path[:-1], model)
    return section.model_fields.get(path[-1]) if section else None


def _model_at(path: KeyPath, model: type[BaseModel]) -> type[BaseModel] | None:
    """The model of the section or list item at `path`."""
    if not path:
        return model
    if path[-1].isdigit():
        field = _field(path[:-1], model)
        items = get_args(field.annotation) if field else ()
        return _section(items[0]) if items else None
    field = _field(path, model)
    return _section(field.annotation) if field else None


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _choices(annotation: Any) -> tuple[str | int, ...]:
    """The values of a Literal, also when it stands inside Annotated, or beside None."""
    if hasattr(annotation, "__metadata__"):
        return _choices(annotation.__origin__)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(itertools.chain.from_iterable(_choices(part) for part in get_args(annotation)))


def assignment(path: KeyPath, value: object) -> str:
    """`key=value`, the value in YAML's spelling and cut to a readable length."""
    text = _flow(value)
    return f"{'.'.join(path)}={text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + '...'}"


def _flow(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return value if value.isprintable() and value.strip() and "=" not in value else json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return str(value)
