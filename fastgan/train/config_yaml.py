"""Reads YAML into plain values and remembers the line of every key.

Unquoted scalars follow the YAML 1.2 core rules: only true and false are booleans (PyYAML also takes yes, no, on and
off), 1e-3 is a number (PyYAML takes it for text); 1_000_000 is allowed, too.
"""

import re
from typing import Any

import yaml

from fastgan.errors import ConfigError

# A key as its parts: ("penalties", "0", "weight").
KeyPath = tuple[str, ...]

_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"([-+]?)\.(inf|nan)", re.IGNORECASE)
_IMPLICIT_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")}


def parse_scalar(text: str) -> object:
    """The value of an unquoted YAML scalar: None, bool, int, float, or the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    try:
        if _WHOLE_NUMBER.fullmatch(text):
            return int(text)
        if _NUMBER.fullmatch(text):
            return float(text)
    except ValueError:  # more digits than Python converts, or a misplaced underscore
        return text
    special = _NOT_FINITE.fullmatch(text)
    return float(special[1] + special[2]) if special else text


class YamlReader:
    """One parsed YAML document.

    Args:
        text: the document.
        source: what it is called in messages, e.g. the file's path.
        with_lines: whether messages name lines, too.
    Attributes:
        values: plain values; None for an empty document.
        lines: the line, from 1, of every key, list item, and () for the whole.
        problems: duplicate keys and the like, one line each.
    Raises:
        ConfigError: the text is not YAML.
    """

    def __init__(self, text: str, *, source: str, with_lines: bool) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[str] = []
        self._source, self._with_lines = source, with_lines
        try:
            node = _compose(text)
            self.values: Any = None if node is None else self._construct(node, ())
        except RecursionError:
            raise ConfigError(f"{source}: not valid YAML: nested too deeply") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            detail = ", ".join(part for part in (error.context, error.problem) if part)
            raise ConfigError(f"{self.place(mark.line + 1 if mark else 1)}: not valid YAML: {detail}") from None
        except yaml.reader.ReaderError as error:
            detail = f"the character {chr(int(error.character))!r} is not allowed"
            raise ConfigError(f"{source}: not valid YAML: {detail}") from None

    def place(self, line: int) -> str:
        """`line` as messages name it."""
        return f"{self._source}:{line}" if self._with_lines else self._source

    def _construct(self, node: yaml.Node, path: KeyPath) -> Any:
        """The plain value of `node`, which is the value of the key `path`."""
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if node.tag not in _IMPLICIT_TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self.problems.append(f"{self.place(line)}: the tag {tag} is not allowed; write the plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._construct_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._construct(item, (*path, str(index))) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return parse_scalar(node.value) if node.style is None else node.value

    def _construct_mapping(self, mapping: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in mapping.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(f"{self.place(line)}: a key must be a name, not a list or a mapping")
                continue
            child = (*path, key_node.value)
            if key_node.value in values:
                first = f", first on line {self.lines[child]}" if self._with_lines else ""
                self.problems.append(f"{self.place(line)}: {'.'.join(child)} is given twice{first}; remove one")
                continue
            self.lines[child] = line
            values[key_node.value] = self._construct(value_node, child)
        return values


class _Loader(yaml.SafeLoader):
    """Leaves unquoted scalars as text for `parse_scalar`, and knows no aliases: a configuration is a tree."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  PyYAML's own name and type

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            problem = f"the alias *{event.anchor} is not allowed, write the value out"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()
