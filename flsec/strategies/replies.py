"""From what clients sent to a cohort: every reply is screened here, and what does not fit is quarantined.

A hostile client can send anything. Nothing in this file raises because of what a reply holds, and only what a client
sends can cost it its place: replies are compared with the global model, never with one another.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsec import _npy, _numbers
from flsec.errors import ConfigError
from flsec.strategies._metrics import cleaned
from flsec.strategies.cohort import Cohort, Layout, Slot
from flsec.strategies.report import Kind, Quarantined, name_in_message

__all__ = ["GlobalModel", "Malformed", "Reply", "check_num_examples"]


StateOf = Callable[[Sequence[NDArray[Any]]], Collection[int]]


@dataclass(frozen=True)
class Reply:
    """One client's reply, the same for both Flower APIs.

    Attributes:
        client_id: Flower's node id.
        tensors: the arrays as ``.npy`` bytes, in the client's order.
        names: their names where the API sends names.
        num_examples: as sent; not yet checked.
        metrics: as sent; not yet checked.
        origin: the Flower object that the reply came in.

    Example:
        >>> reply = Reply(client_id=7, tensors=(b"no array",), names=None, num_examples=-1, metrics={}, origin=None)
        >>> reply.num_examples  # nothing of it has been checked
        -1
    """

    client_id: int
    tensors: Sequence[bytes]
    names: Sequence[str] | None
    num_examples: Any
    metrics: Any
    origin: Any


class Malformed(ValueError):
    """A reply that does not fit; the message is the quarantine's reason.

    Args:
        reason: the sentence.
        kind: of reason.

    Example:
        >>> error = Malformed("NaN or infinity in the update", "not_finite")
        >>> str(error), error.kind
        ('NaN or infinity in the update', 'not_finite')
    """

    def __init__(self, reason: str, kind: Kind = "other"):
        super().__init__(reason)
        self.kind: Kind = kind


class GlobalModel:
    """The model that the clients of a round start from, with what is needed to read replies against it.

    Args:
        tensors: its arrays as ``.npy`` bytes.
        names: their names where the API sends names.
        state: tells, of the arrays, the positions of those that are state and no weights (BatchNorm's statistics).

    Raises:
        ConfigError: a model that flsec cannot defend: no arrays, none of floating numbers, arrays of objects or texts,
            or numbers that are not finite.

    Read as one vector, (d,) float32, and the arrays beside it.

    Example:
        >>> import io
        >>> def npy(array):
        ...     stream = io.BytesIO()
        ...     np.save(stream, array)
        ...     return stream.getvalue()
        >>> model = GlobalModel([npy(np.float32([1.0, 2.0])), npy(np.array(7))], ["weight", "steps"])
        >>> model.vector, model.layout.size
        (tensor([1., 2.]), 2)
    """

    def __init__(
        self, tensors: Sequence[bytes], names: Sequence[str] | None = None, state: StateOf = lambda _: frozenset()
    ):
        self.tensors = list(tensors)
        self.names = None if names is None else tuple(names)
        self.arrays = [self._read(position, data) for position, data in enumerate(tensors)]
        self.headers = [_npy.header(data) for data in tensors]
        self.layout = Layout(self.arrays, names, state(self.arrays))
        if not self.layout.size:
            raise ConfigError(_nothing_to_defend(self.arrays))
        for slot, array in zip(self.layout.slots, self.arrays, strict=True):
            if not _numbers.is_finite(array):
                raise ConfigError(
                    f"the global model is not finite: NaN or infinity in array {slot.name!r}, and no update from there "
                    "means anything. Give the strategy a sound first model (classic API: initial_parameters); one that "
                    "is asked of a client may be hostile."
                )
        self.vector = self.layout.flatten(self.arrays)
        self._variances = _variances(self.layout)

    def _read(self, position: int, data: bytes) -> NDArray[Any]:
        name = str(position) if self.names is None else self.names[position]
        try:
            array = _npy.read(data)
        except Exception as error:
            raise ConfigError(
                f"array {name!r} of the model is no numpy array ({error}): flsec defends models that are arrays of "
                "numbers, not trees, objects or raw bytes. Leave this strategy without a defense."
            ) from None
        if not _numbers.is_number(array.dtype):
            raise ConfigError(
                f"array {name!r} of the model has dtype {array.dtype}: flsec defends floating (float16 to float64, "
                "bfloat16, complex), integer and boolean arrays. Keep others out of what is exchanged."
            )
        return array

    @property
    def has_bfloat16(self) -> bool:
        """Whether some arrays are raw bfloat16, with which Flower's strategies cannot compute."""
        return any(_numbers.is_bfloat16(array.dtype) for array in self.arrays)

    def in_float32(self) -> list[bytes]:
        """Return the arrays as ``.npy`` bytes with float32 in the place of bfloat16."""
        wide = _numbers.widened(self.arrays)
        return [
            data if same is array else _npy.write(same)
            for array, data, same in zip(self.arrays, self.tensors, wide, strict=True)
        ]

    def start_from(self, vector: Tensor, state: Sequence[NDArray[Any]]) -> None:
        """Put other weights and state in the place of the model's own.

        Args:
            vector: (d,) the parameters that take its place. Not modified.
            state: the arrays beside them.
        """
        self.arrays = self.layout.unflatten(vector, state)
        self.tensors = [_npy.write(array) for array in self.arrays]
        self.headers = [_npy.header(data) for data in self.tensors]
        self.vector = vector

    def parse(
        self, replies: Sequence[Reply], *, round: int, max_num_examples: int
    ) -> tuple[Cohort, list[Quarantined], dict[int, str]]:
        """Return the well-formed replies as a cohort ordered by client id, the others with why, and metrics lost.

        Args:
            replies: one a client; a second reply of the same client is quarantined, and its first counts.
            round: the server's round.
            max_num_examples: more than this is nothing that an honest client would report.
        """
        order = sorted(range(len(replies)), key=lambda i: replies[i].client_id)
        matrix = np.empty((len(replies), self.layout.size), np.float32)
        quarantined: list[Quarantined] = []
        kept: list[int] = []
        buffers: list[tuple[NDArray[Any], ...]] = []
        metrics: list[Mapping[str, Any]] = []
        left_out: dict[int, str] = {}
        seen: dict[int, int] = {}
        for i in order:
            reply = replies[i]
            seen[reply.client_id] = seen.get(reply.client_id, 0) + 1
            if seen[reply.client_id] > 2:  # said already
                continue
            try:
                if seen[reply.client_id] == 2:
                    raise Malformed("replied twice", "duplicate")
                check_num_examples(reply.num_examples, max_num_examples)
                buffers.append(self._read_into(matrix[len(kept)], reply))
            except Malformed as error:
                quarantined.append(Quarantined(reply.client_id, str(error), error.kind))
                continue
            kept.append(i)
            sound, why = cleaned(reply.metrics)
            metrics.append(sound)
            if why is not None:
                left_out[reply.client_id] = why
        cohort = Cohort(
            updates=torch.from_numpy(matrix[: len(kept)]),
            num_examples=torch.tensor([float(replies[i].num_examples) for i in kept], dtype=torch.float64),
            client_ids=tuple(replies[i].client_id for i in kept),
            metrics=tuple(metrics),
            global_parameters=self.vector,
            round=round,
            layout=self.layout,
            buffers=tuple(buffers),
            sources=tuple(kept),
            global_state=self.layout.buffers(self.arrays),
        )
        return cohort, quarantined, left_out

    def _read_into(self, row: NDArray[np.float32], reply: Reply) -> tuple[NDArray[Any], ...]:
        """Write local minus global into ``row`` and return the arrays beside the matrix."""
        tensors = self._in_order(reply)
        buffers = []
        with np.errstate(all="ignore"):  # hostile values overflow; they are caught below
            for slot, expected, header, data, variance in zip(
                self.layout.slots, self.arrays, self.headers, tensors, self._variances, strict=True
            ):
                array = _read_as(expected, header, data, slot.name)
                if slot.start is not None:
                    _subtract(array, expected, row[slot.start : slot.stop])
                    continue
                array = _in_the_models_type(array, slot)
                if not _numbers.is_finite(array):
                    raise Malformed(f"NaN or infinity in array {name_in_message(slot.name)}", "not_finite")
                if variance and array.size and _numbers.floats_of(array).min() < 0:
                    raise Malformed(f"a negative variance in array {name_in_message(slot.name)}", "out_of_range")
                buffers.append(array)
            if not np.isfinite(row.sum()) and not np.isfinite(row).all():
                raise Malformed("NaN or infinity in the update", "not_finite")
        return tuple(buffers)

    def in_usable_dtypes(self, reply: Reply) -> list[NDArray[Any]] | None:
        """Return a well-formed reply's arrays in dtypes that the wrapped strategy can compute with.

        A client may answer a float32 model in bfloat16 or an int64 counter in int8.

        Returns:
            None where that is so as they came.
        """
        tensors = self._in_order(reply)
        if all(data[: len(header)] == header for data, header in zip(tensors, self.headers, strict=True)):
            return None
        arrays = [_npy.read(data) for data in tensors]
        dtypes = [array.dtype for array in self.arrays]
        if all(map(_numbers.can_stand_for, (array.dtype for array in arrays), dtypes)):
            return None
        with np.errstate(over="ignore"):
            return [
                array if _numbers.can_stand_for(array.dtype, dtype) else _numbers.cast(array, dtype)
                for array, dtype in zip(arrays, dtypes, strict=True)
            ]

    def _in_order(self, reply: Reply) -> Sequence[bytes]:
        if len(reply.tensors) != len(self.arrays):
            raise Malformed(f"{len(reply.tensors)} arrays where the model has {len(self.arrays)}", "structure")
        if self.names is None or reply.names is None or tuple(reply.names) == self.names:
            return reply.tensors
        by_name = dict(zip(reply.names, reply.tensors, strict=True))
        strange = set(by_name) ^ set(self.names)
        if strange:
            example = min(strange, key=lambda name: (len(name), name))  # the same in every process
            raise Malformed(f"array names differ from the model's, such as {name_in_message(example)}", "structure")
        return [by_name[name] for name in self.names]


def _variances(layout: Layout) -> list[bool]:
    """Return which arrays are BatchNorm's variances: by name, or as the second vector before a lone counter."""
    slots = layout.slots
    after = [*slots[1:], None]
    return [
        slot.start is None
        and _numbers.is_weight(slot.dtype)
        and slot.dtype.kind != "c"
        and (
            slot.name.endswith(("running_var", "moving_variance"))
            or (follower is not None and follower.shape == () and follower.dtype.kind == "i" and len(slot.shape) == 1)
        )
        for slot, follower in zip(slots, after, strict=True)
    ]


def _nothing_to_defend(arrays: Sequence[NDArray[Any]]) -> str:
    if not arrays:
        return (
            "the global model is empty, so there is nothing to train from: Flower asked one client for the first "
            "model, and it sent none. Give the strategy the first model itself (classic API: initial_parameters; "
            "Message API: start(initial_arrays=...))."
        )
    kinds = ", ".join(sorted({str(array.dtype) for array in arrays}))
    return (
        f"the model has no floating arrays (only {kinds}): updates of whole numbers or bytes, such as XGBoost's trees, "
        "cannot be judged by their values. Leave this strategy without a defense."
    )


def _in_the_models_type(array: NDArray[Any], slot: Slot) -> NDArray[Any]:
    """Return an array that is carried beside the matrix, where it is combined with others' of the same type."""
    if array.dtype == slot.dtype:
        return array
    if _numbers.is_weight(slot.dtype):
        return _numbers.in_dtype(_numbers.floats_of(array), slot.shape, slot.dtype)
    limits = np.iinfo(slot.dtype) if slot.dtype.kind in "iu" else None
    if limits is not None and array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise Malformed(f"a number too large for {slot.dtype} in array {name_in_message(slot.name)}", "out_of_range")
    return array.astype(slot.dtype)


def _subtract(array: NDArray[Any], expected: NDArray[Any], out: NDArray[np.float32]) -> None:
    local, start = _numbers.floats_of(array), _numbers.floats_of(expected)
    wide = np.result_type(local, start, np.float32)  # float16 would round the difference
    np.subtract(local, start, out=out, dtype=wide, casting="same_kind")


def _read_as(expected: NDArray[Any], header: bytes, data: bytes, name: str) -> NDArray[Any]:
    """Return the array in ``data`` if it has the shape and the kind of number of ``expected``."""
    if len(data) == len(header) + expected.nbytes and data[: len(header)] == header:  # what an honest client sends
        flat: NDArray[Any] = np.frombuffer(data, expected.dtype, expected.size, len(header))
        return flat.reshape(expected.shape, order="F" if expected.flags.fnc else "C")
    what = f"array {name_in_message(name)}"
    try:
        array = _npy.read(data)
    except Exception as error:
        raise Malformed(f"{what} cannot be read: {error}", "unreadable") from None
    if array.shape != expected.shape:
        raise Malformed(f"{what} has shape {array.shape} where the model has {expected.shape}", "shape")
    if not _numbers.same_kind(array.dtype, expected.dtype):
        raise Malformed(f"{what} has dtype {array.dtype} where the model has {expected.dtype}", "dtype")
    return array


def check_num_examples(value: Any, largest: int) -> None:
    """Raise ``Malformed`` unless ``value`` is a number of examples that a client can have.

    Raises:
        Malformed: it is no number, not above 0, or more than ``largest``.

    Example:
        >>> check_num_examples(20, largest=100)
        >>> try:
        ...     check_num_examples(10**12, largest=100)
        ... except Malformed as error:
        ...     print(error)
        num_examples = 1e+12 is not in 1..100
    """
    count = _numbers.real(value)
    if count is None or count != count:
        raise Malformed(f"num_examples is no number: {name_in_message(value)}", "num_examples")
    if not 0 < count <= largest:
        raise Malformed(f"num_examples = {count:g} is not in 1..{largest:g}", "num_examples")
