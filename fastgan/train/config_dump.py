"""Writes a configuration as YAML that explains itself and loads back to an equal configuration."""

import re
from collections.abc import Iterator

import yaml
from pydantic import BaseModel

from fastgan.train.config_yaml import parse_scalar

_COMMENT_COLUMN = 40
_PLAIN_TEXT = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
# Text to this module, but booleans to readers of YAML 1.1.
_BOOLEAN_ELSEWHERE = {"y", "n", "yes", "no", "on", "off"}


def dump_config(config: BaseModel) -> str:
    """YAML with every key of `config` and, behind each, what it means."""
    lines = (f"{text:<{_COMMENT_COLUMN - 2}}  # {comment}" if comment else text for text, comment in _lines(config, ""))
    return "\n".join(lines) + "\n"


def _lines(section: BaseModel, indent: str) -> Iterator[tuple[str, str]]:
    """Pairs of a line of YAML and its comment."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        comment = field.description or ""
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:", comment
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
            yield f"{indent}{name}:", comment
            yield from ((f"{indent}  - {_on_one_line(item)}", "") for item in value)
        else:
            yield f"{indent}{name}: {_on_one_line(value)}", comment


def _on_one_line(value: object) -> str:
    """A value, a list or a section, on one line."""
    if isinstance(value, BaseModel):
        return f"{{{', '.join(f'{key}: {_on_one_line(getattr(value, key))}' for key in type(value).model_fields)}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_on_one_line, value))}]"
    return _scalar(value)


def _scalar(value: object) -> str:
    """One value on one line. Numbers are spelled so that readers of YAML 1.1 see numbers, too."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        mantissa, mark, exponent = repr(value).partition("e")
        return f"{mantissa}.0e{exponent}" if mark and "." not in mantissa else repr(value)
    if not isinstance(value, str):
        return str(value)
    plain = _PLAIN_TEXT.fullmatch(value) and parse_scalar(value) == value and value.lower() not in _BOOLEAN_ELSEWHERE
    quoted: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=float("inf"))
    return value if plain else quoted.strip()
