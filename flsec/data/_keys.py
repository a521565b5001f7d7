"""Where an example, or a batch of them, has its inputs and its labels."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flsec.data._poison import Poison
from flsec.data._values import changed, described, is_column, is_frame
from flsec.errors import ConfigError

__all__ = ["Key", "Keys", "is_example", "poisoned_batch", "replaced"]

Key = str | int
Part = Literal["inputs", "labels"]
# In the order in which they are looked for; of those in one line, which are as good as each other, one may be there.
NAMES: dict[Part, tuple[str, ...]] = {
    "inputs": (
        "pixel_values input_ids input_values input_features",
        "x inputs input features feature data img image images audio",
        "text texts sentence sentences prompt",
    ),
    "labels": (
        "label labels label_ids y target targets",
        "class classes fine_label character sentiment category",
    ),
}
USUAL = {part: [frozenset(names.split()) for names in lines] for part, lines in NAMES.items()}


@dataclass(frozen=True)
class Keys:
    """The names or positions of inputs and labels; what is None is found by its usual name, or is the first and second.

    Args:
        inputs: a key of a dictionary, a position in a tuple, or the columns of a frame.
        labels: likewise.
    """

    inputs: Key | Sequence[str] | None = None
    labels: Key | None = None

    def of_inputs(self, example: Any) -> Any:
        """Return the key of the inputs in an example, or in a batch of them.

        Raises:
            ConfigError: there is none, or more than one.
        """
        if not is_frame(example) or self.inputs is not None:
            return self._found("inputs", example)
        texts = [key for key in _usual("inputs", example) if example[key].dtype.kind not in "biufc"]
        if len(texts) == 1:
            return texts[0]
        label = self.of_labels(example)
        return [column for column in example.columns if column != label]  # a table of features

    def of_labels(self, example: Any) -> Any:
        """Return the key of the labels in an example, or in a batch of them; raises as ``of_inputs``."""
        return self._found("labels", example)

    def split(self, example: Any) -> tuple[Any, Any]:
        """Return inputs and labels of an example, or of a batch of them."""
        return example[self.of_inputs(example)], example[self.of_labels(example)]

    def _found(self, part: Part, example: Any) -> Any:
        named = self.inputs if part == "inputs" else self.labels
        if named is not None:
            return self._named(part, named, example)
        if not _has_names(example):
            if part == "labels" and _may_be_elsewhere(example):
                raise _unclear(part, example, "the second one is not clearly the label")
            return 0 if part == "inputs" else 1
        usual = list(_usual(part, example))
        if len(usual) != 1:
            raise _unclear(
                part, example, f"{' and '.join(map(repr, usual))} may be" if usual else "none has a usual name"
            )
        return usual[0]

    def _named(self, part: Part, named: Any, example: Any) -> Any:
        if _has_names(example):
            known = list(example.columns if is_frame(example) else example)
            missing = [name for name in (named if isinstance(named, list | tuple) else [named]) if name not in known]
            if missing:
                raise _unclear(part, example, f"there is no {missing[0]!r}")
            return list(named) if isinstance(named, tuple) else named
        if not isinstance(named, int) or not -len(example) <= named < len(example):
            raise _unclear(part, example, f"{part}_key={named!r} is no position in it")
        return named


def is_example(value: Any) -> bool:
    """Return whether ``value`` can be an example: a dictionary, or a tuple or list of input, label and perhaps more."""
    return _has_names(value) or (isinstance(value, tuple | list) and len(value) > 1)


def replaced(example: Any, news: Mapping[Any, Any]) -> Any:
    """Return a copy of an example, or of a batch of them, with other values under some keys, in its own type."""
    if is_frame(example):
        copied = example.copy()
        for key, new in news.items():
            copied[list(key) if isinstance(key, tuple) else key] = new
        return copied
    if _has_names(example):
        copied = copy.copy(example)
        for key, new in news.items():
            copied[key] = new
        return copied
    values = list(example)
    for position, new in news.items():
        values[position] = new
    kind: Any = type(example)
    return kind._make(values) if hasattr(kind, "_make") else kind(values)


def poisoned_batch(batch: Any, keys: Keys, poison: Poison, positions: Any) -> Any:
    """Return a batch of examples with those that are chosen changed, in its own type; ``batch`` is not.

    Args:
        batch: a tuple, dictionary or frame of columns.
        keys: where its inputs and labels are.
        poison: how they are changed.
        positions: (k,) which of the client's examples these are.
    """
    rows = poison.rows(positions)
    news: dict[Any, Any] = {}
    if rows is None or len(rows):
        for change, of in ((poison.inputs, keys.of_inputs), (poison.labels, keys.of_labels)):
            if change is not None:
                key = of(batch)
                news[tuple(key) if isinstance(key, list) else key] = changed(batch[key], change, rows)
    return replaced(batch, news)


def _usual(part: Part, example: Any) -> Iterator[Any]:
    """Yield the keys that have the best of the usual names."""
    for names in USUAL[part]:
        found = [key for key in (example.columns if is_frame(example) else example) if _lower(key) in names]
        yield from found
        if found:
            return


def _lower(key: Any) -> Any:
    return key.lower() if isinstance(key, str) else key


def _has_names(example: Any) -> bool:
    return isinstance(example, Mapping) or is_frame(example)


def _may_be_elsewhere(example: Any) -> bool:
    """Whether a later part of a tuple looks more like labels: (tokens, mask, label)."""
    second, *later = example[1:]
    return any(_is_whole(value) and _dims(value) < _dims(second) for value in later)


def _dims(value: Any) -> int:
    shape = getattr(value, "shape", None)
    return len(shape) if shape is not None else int(is_column(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or "int" in str(getattr(value, "dtype", ""))


def _unclear(part: Part, example: Any, why: str) -> ConfigError:
    if is_frame(example):
        seen, form = ", ".join(f"{name!r} ({kind})" for name, kind in example.dtypes.items()), "the column's name"
    elif isinstance(example, Mapping):
        seen, form = ", ".join(f"{key!r} ({described(value)})" for key, value in example.items()), "its key"
    else:
        seen, form = ", ".join(f"{i}: {described(value)}" for i, value in enumerate(example)), "its position"
    return ConfigError(
        f"which part of a training example holds the {part} cannot be told: {why}. It has {seen}. Pass {part}_key=, "
        f"{form}.",
        parameter=f"{part}_key",
    )
