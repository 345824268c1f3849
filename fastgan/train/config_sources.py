"""Configuration values of several sources, later ones over earlier ones, and where each was written."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastgan.errors import ConfigError
from fastgan.train.config_yaml import KeyPath

COMMAND_LINE = "command line"


class Origin(NamedTuple):
    """Where a value was written. Origins sort by layer, then line; `line` is 0 where none shall be named."""

    layer: int
    line: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class MergedSources:
    """Nested plain values, ready to be validated, with the origin of each."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._origins: dict[KeyPath, Origin] = {}
        self._num_layers = 0

    def add_document(self, values: Mapping[str, Any], lines: Mapping[KeyPath, int], *, source: str) -> None:
        """Lay a file over what is there. Sections are merged key by key; lists are replaced as a whole.

        Args:
            values: plain values.
            lines: the lines that messages shall name; may be empty.
            source: what the file is called in messages.
        """
        self._num_layers += 1
        whole = self._origins[()] = Origin(self._num_layers, 0, source)
        origins = {path: Origin(self._num_layers, line, source) for path, line in lines.items() if path}
        self._lay_over(self.values, values, (), origins=origins, default=whole)

    def add_override(self, path: KeyPath, value: object, *, source: str) -> None:
        """Set one key, e.g. ("penalties", "0", "weight"). Sections that are missing are made.

        Raises:
            ConfigError: the path leads into a list that has no such item.
        """
        self._num_layers += 1
        origin = Origin(self._num_layers, 0, source)
        container: Any = self.values
        for depth, part in enumerate(path):
            prefix, rest = path[: depth + 1], path[depth + 1 :]
            key: Any = _list_index(container, path, depth) if isinstance(container, list) else part
            inner = container.get(key) if isinstance(container, dict) else container[key]
            if rest and isinstance(inner, dict | list):
                container = inner
            elif isinstance(container, dict):
                self._lay_over(container, {key: _nested(rest, value)}, prefix[:-1], origins={}, default=origin)
                return
            else:
                self._forget_below(prefix)
                container[key], self._origins[prefix] = _nested(rest, value), origin
                return

    def origin(self, *paths: KeyPath) -> Origin:
        """Where the latest of these keys was written; that of the section around the first if none was."""
        written = [self._origins[path] for path in paths if path in self._origins]
        if written:
            return max(written)
        around = (paths[0][:end] for end in range(len(paths[0]), -1, -1))
        return next(self._origins[path] for path in around if path in self._origins)

    def _lay_over(
        self,
        below: dict[str, Any],
        above: Mapping[str, Any],
        prefix: KeyPath,
        *,
        origins: Mapping[KeyPath, Origin],
        default: Origin,
    ) -> None:
        for key, value in above.items():
            path = (*prefix, key)
            if not (isinstance(value, dict) and isinstance(below.get(key), dict)):
                self._forget_below(path)
                below[key] = {} if isinstance(value, dict) else value
            self._origins[path] = origins.get(path, default)
            if isinstance(value, dict):
                self._lay_over(below[key], value, path, origins=origins, default=default)
            elif isinstance(value, list):
                self._origins |= {inner: origin for inner, origin in origins.items() if inner[: len(path)] == path}

    def _forget_below(self, path: KeyPath) -> None:
        self._origins = {known: origin for known, origin in self._origins.items() if known[: len(path)] != path}


def _nested(path: KeyPath, value: object) -> Any:
    """`value` inside one mapping per part of `path`."""
    for part in reversed(path):
        value = {part: value}
    return value


def _list_index(items: list[Any], path: KeyPath, depth: int) -> int:
    """The number that part `depth` of `path` gives of an item of `items`."""
    text, name = path[depth], ".".join(path[:depth])
    if text.isascii() and text.isdigit() and int(text) < len(items):
        return int(text)
    last = len(items) - 1
    have = "is empty" if not items else "has item 0 only" if last == 0 else f"has items 0 to {last} only"
    raise ConfigError(f"{'.'.join(path)} does not exist: {name} {have}; give the whole list with {name}=[...]")
