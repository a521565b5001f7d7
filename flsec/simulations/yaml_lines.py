"""YAML that remembers where each key stands, read by the core schema of YAML 1.2 and nothing beyond it.

PyYAML speaks YAML 1.1: ``1e-3`` is text to it, ``no`` is false, ``010`` is 8, ``1:30`` is 90 and ``2026-11-20`` a
date. Here numbers, ``true``, ``false`` and ``null`` are what they look like, and all else is text.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from flsec.errors import ConfigError

__all__ = ["KeyPath", "Lines", "dump", "parse_value", "read"]

KeyPath = tuple[str | int, ...]  # ("defenses", 0, "num_byzantine")
Lines = dict[KeyPath, int]

_PREFIX = "tag:yaml.org,2002:"
_SCALARS: dict[str, tuple[str, Callable[[str], Any]]] = {  # in the order in which they are tried
    "null": (r"~|null|Null|NULL|", lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", lambda text: int(text, 0 if text[1:2] in ("o", "x") else 10)),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        lambda text: float(re.sub(r"\.(?=[iInN])", "", text)),
    ),
    "str": (r"(?s:.*)", str),
}


class _Loader(yaml.SafeLoader):
    """Knows YAML 1.2's core schema."""


class _Dumper(yaml.SafeDumper):
    """Quotes what would not be text in YAML 1.2's core schema, or in YAML 1.1."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _) in _SCALARS.items():
    if _name != "str":
        _Loader.add_implicit_resolver(_PREFIX + _name, re.compile(rf"(?:{_pattern})\Z"), None)
        _Dumper.add_implicit_resolver(_PREFIX + _name, re.compile(rf"(?:{_pattern})\Z"), None)


def read(source: Path | str, name: str = "<text>") -> tuple[dict[str, Any], Lines]:
    """Read a YAML mapping into plain data and the line of every key and list entry.

    Args:
        source: a path is read as a file; a string is the YAML text itself.
        name: what messages call a text.

    Returns:
        The data, and {key path: line}, lines counting from 1.

    Raises:
        ConfigError: no such file, no UTF-8, malformed YAML, a key given twice, or no mapping at the top.

    Example:
        >>> data, lines = read("defenses: [{name: krum, num_byzantine: 2}]")
        >>> lines["defenses", 0, "num_byzantine"]
        1
    """
    text = source
    if isinstance(source, Path):
        name, text = str(source), _file_text(source)
    assert isinstance(text, str)
    node = _compose(text, name)
    if not isinstance(node, yaml.MappingNode):
        got = "nothing" if node is None else _kind(node)
        raise ConfigError(f"{name}:1: must hold 'key: value' lines at the top; got {got}. For example: seed: 0")
    lines: Lines = {}
    return _data_of(node, (), lines, name), lines


def parse_value(text: str, name: str = "<text>") -> Any:
    """Return one YAML value, such as ``0.5``, ``[1, 2]`` or ``{name: krum}``, as plain data.

    Raises:
        ConfigError: malformed YAML.

    Example:
        >>> parse_value("0.5"), parse_value("[1, 2]"), parse_value("{name: krum}")
        (0.5, [1, 2], {'name': 'krum'})
    """
    node = _compose(text, name)
    return None if node is None else _data_of(node, (), {}, name)


def dump(data: Any, *, flow: bool = False) -> str:
    """Return plain data as YAML that ``read`` (or any other reader) takes back unchanged.

    Args:
        data: dictionaries, lists, strings, numbers, booleans and None.
        flow: all in one line.

    Example:
        >>> print(dump({"rate": 0.001, "note": "1e-3"}, flow=True))
        {rate: 0.001, note: '1e-3'}
    """
    text = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=10**6 if flow else 100
    )
    return text.removesuffix("...\n").rstrip("\n") if flow else text


def _file_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. Give the path of a YAML file, such as experiment.yaml.") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder. Give a file in it, such as {path / 'experiment.yaml'}.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Give a file that you may read.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: must be UTF-8 text; got the byte 0x{content[error.start]:02x}. "
            "Save the file as UTF-8 in your editor."
        ) from None


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        unclosed = "stream end" in (error.problem or "") and error.context_mark
        mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        context = f" {error.context}" if error.context else ""
        raise ConfigError(
            f"{name}:{line}: malformed YAML{context}: {error.problem}. "
            "Indent with spaces, and write 'key: value' or '- entry', such as: seed: 0"
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: must be plain text; got the character {chr(error.character)!r}.") from None
    except RecursionError:
        raise ConfigError(f"{name}:1: is nested too deeply; a few levels will do.") from None


def _data_of(node: yaml.Node, path: KeyPath, lines: Lines, name: str, above: tuple[yaml.Node, ...] = ()) -> Any:
    line = node.start_mark.line + 1
    if node in above:
        raise ConfigError(f"{name}:{line}: an alias (*) must not name what it stands in. Write the value out.")
    above = (*above, node)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in (_PREFIX + "map", _PREFIX + "seq"):
        raise _strange_tag(node, name, line)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[(*path, index)] = child.start_mark.line + 1
        return [_data_of(child, (*path, index), lines, name, above) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, child in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if key_node.tag != _PREFIX + "str":
                shown = repr(key) if isinstance(key_node, yaml.ScalarNode) else _kind(key_node)
                raise ConfigError(f"{name}:{line}: a key must be text; got {shown}. For example: seed: 0")
            if key in mapping:
                raise ConfigError(
                    f"{name}:{line}: a key may stand once in a section; got {key!r} a second time, after line "
                    f"{lines[(*path, key)]}. Keep one of the two."
                )
            lines[(*path, key)] = line
            mapping[key] = _data_of(child, (*path, key), lines, name, above)
        return mapping
    return _scalar(node, name, line)


def _kind(node: yaml.Node) -> str:
    return (
        "a list"
        if isinstance(node, yaml.SequenceNode)
        else "a section"
        if isinstance(node, yaml.MappingNode)
        else "a value"
    )


def _scalar(node: yaml.Node, name: str, line: int) -> Any:
    pattern, convert = _SCALARS.get(node.tag.removeprefix(_PREFIX), (None, str))
    if pattern is None or not re.fullmatch(pattern, node.value):
        raise _strange_tag(node, name, line)
    return convert(node.value)


def _strange_tag(node: yaml.Node, name: str, line: int) -> ConfigError:
    value = repr(node.value) if isinstance(node, yaml.ScalarNode) else _kind(node)
    return ConfigError(
        f"{name}:{line}: a value is text, a number, true, false, null, a list or a section; got {value} with the tag "
        f"{node.tag.replace(_PREFIX, '!!')}. Leave the tag out."
    )
