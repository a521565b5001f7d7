"""One round's replies as a matrix: what every defense works on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsec import _numbers
from flsec.aggregation import _gram

__all__ = ["Cohort", "Layout"]

Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Slot:
    """Where one array of the model lies in the flat vector; ``start`` is None for state, which has no place in it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int | None
    stop: int | None


class Layout:
    """Names, shapes and dtypes of a model's arrays, and their places in a flat vector of its floats.

    A complex number takes two places in the vector. State has none and is carried beside it: integer and boolean
    arrays (BatchNorm's counters), and the floating arrays named in ``state`` (BatchNorm's statistics).

    Args:
        arrays: the model's arrays in order.
        names: their names; positions if left out.
        state: positions of floating arrays that are state and not weights.

    A vector is (d,) float32.

    Example:
        >>> layout = Layout([np.zeros((2, 3), np.float32), np.array(7)])
        >>> layout.size, [slot.start for slot in layout.slots]
        (6, [0, None])
    """

    def __init__(self, arrays: Sequence[NDArray[Any]], names: Sequence[str] | None = None, state: Collection[int] = ()):
        slots = []
        start = 0
        for position, array in enumerate(arrays):
            name = names[position] if names is not None else str(position)
            if position in state or not _numbers.is_weight(array.dtype):
                slots.append(Slot(name, array.shape, array.dtype, None, None))
            else:
                stop = start + _numbers.num_floats(array)
                slots.append(Slot(name, array.shape, array.dtype, start, stop))
                start = stop
        self.slots = tuple(slots)
        self.size = start

    def flatten(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        """Return the weights among the arrays as one new (d,) float32 vector."""
        vector = np.empty(self.size, np.float32)
        for slot, array in zip(self.slots, arrays, strict=True):
            if slot.start is not None:
                vector[slot.start : slot.stop] = _numbers.floats_of(array)
        return torch.from_numpy(vector)

    def buffers(self, arrays: Sequence[NDArray[Any]]) -> Arrays:
        """Return the arrays that have no place in the vector."""
        return tuple(a for slot, a in zip(self.slots, arrays, strict=True) if slot.start is None)

    def unflatten(self, vector: Tensor, buffers: Sequence[NDArray[Any]] = ()) -> list[NDArray[Any]]:
        """Return the model's arrays from a (d,) vector and the arrays beside it, in their own dtypes."""
        flat = vector.detach().cpu().numpy()
        beside = iter(buffers)
        arrays: list[NDArray[Any]] = []
        for slot in self.slots:
            if slot.start is None:
                arrays.append(next(beside))
            else:
                arrays.append(_numbers.in_dtype(flat[slot.start : slot.stop], slot.shape, slot.dtype))
        return arrays


class _Rows:
    """Some rows of a matrix, or weighted means of them, made only if somebody looks at them, and what is known of them.

    Args:
        matrix: (m, d).
        numbers: (n,) which of its rows; None: all.
        weights: (n, m) float64, at least 0, each row of sum 1: means of all its rows, in place of ``numbers``.
    """

    def __init__(self, matrix: Tensor, numbers: Tensor | None = None, weights: Tensor | None = None):
        self._matrix = matrix
        self._numbers = numbers
        self._weights = weights
        self._made: Tensor | None = matrix if numbers is None and weights is None else None
        self._when_made = matrix._version
        self._gram: tuple[Tensor, int] | None = None
        self._distances: tuple[Tensor, int] | None = None

    @property
    def updates(self) -> Tensor:
        if self._made is None:
            known, weights = self._matrix, self._weights
            self._made = known[self._numbers] if weights is None else _gram.mixed_rows(known, weights)
            self._when_made = self._made._version
        return self._made

    def parts(self) -> tuple[Tensor, Tensor]:
        """Return a matrix and the (n,) numbers of its rows; no copy, but for means."""
        if self._numbers is not None:
            return self._matrix, self._numbers
        return self.updates, torch.arange(len(self.updates))

    def gram(self) -> Tensor:
        known = self._still_true(self._gram)
        if known is None:
            known = _gram.robust_gram(self.updates)[0]
            self._gram = (known, self._version)
        return known

    def squared_distances(self) -> Tensor:
        known = self._still_true(self._distances)
        if known is None:
            known = _gram.squared_distances(self.updates, self.gram())
            self._distances = (known, self._version)
        return known

    @property
    def _version(self) -> int:
        """Changes with each change in place of the matrix, and of means that have been made of it."""
        changes = self._made._version - self._when_made if self._weights is not None and self._made is not None else 0
        return self._matrix._version + changes

    def _still_true(self, remembered: tuple[Tensor, int] | None) -> Tensor | None:
        """Return what was remembered, unless the updates have been changed in place since, against the rule."""
        return remembered[0] if remembered is not None and remembered[1] == self._version else None

    def keep(self, index: Sequence[int]) -> "_Rows":
        """Return some of the rows, with what is known of those."""
        rows = torch.tensor(index, dtype=torch.int64)
        if self._weights is not None and self._made is None:
            kept = _Rows(self._matrix, weights=self._weights[rows])
        else:
            matrix, numbers = self.parts()
            kept = _Rows(matrix, numbers[rows])
        products, distances = self._still_true(self._gram), self._still_true(self._distances)
        if index and products is not None and (part := _gram.gram_of_rows(products, rows)) is not None:
            kept._gram = (part[0], kept._version)
        if index and distances is not None:
            kept._distances = (distances[rows][:, rows], kept._version)
        return kept

    def mixed(self, weights: Tensor) -> "_Rows":
        """Return the (n, n) weighted means of these rows, with what follows from what is known of these."""
        mixed, distances = _Rows(self.updates, weights=weights), self._still_true(self._distances)
        if distances is not None and (known := _gram.distances_of_means(distances, weights)) is not None:
            mixed._distances = (known, mixed._version)
        return mixed


class Cohort:
    """The well-formed replies of one round, ordered by client id. Nothing in it is changed in place.

    Attributes:
        updates: (n, d) float32; row i is client i's local minus global parameters.
        num_examples: (n,) float64; what each client says it trained on.
        client_ids: (n,); Flower's node ids.
        metrics: n dicts of what the clients reported beside their updates: finite numbers, lists of them, and texts.
        global_parameters: (d,) float32; what the clients started from.
        round: the server's round, from 1.
        layout: how a vector becomes the model's arrays.
        buffers: n tuples of the arrays that are carried beside the matrix: counters and BatchNorm's statistics.
        sources: (n,); for each row, which of the round's replies it came from.
        modified: whether rows no longer equal the replies they came from.
        num_usable: how many replies of this round were well-formed, whatever has been dropped of them since.
        num_rejected: q, how many clients of this round were quarantined for what they sent: each is one of the f.
        global_state: the arrays beside the matrix that the clients started from.
        server_state: where a defense goes back to an earlier model, what the wrapped strategy remembered then.
        members: n tuples of the ids of the clients that a row is the mean of; by default each is its one client's.

    Raises:
        ValueError: ``with_updates`` is given rows of another shape.

    Example:
        >>> import torch
        >>> cohort = Cohort(
        ...     updates=torch.tensor([[1.0, 0.0], [4.0, 4.0], [0.0, 2.0]]), num_examples=torch.ones(3),
        ...     client_ids=(3, 5, 8), metrics=({}, {}, {}), global_parameters=torch.zeros(2), round=1,
        ...     layout=Layout([np.zeros(2, np.float32)]), sources=(0, 1, 2),
        ... )
        >>> cohort.squared_distances()[0].tolist()
        [0.0, 25.0, 5.0]
        >>> cohort.keep([0, 2]).client_ids
        (3, 8)
    """

    def __init__(
        self,
        *,
        updates: Tensor | _Rows,
        num_examples: Tensor,
        client_ids: tuple[int, ...],
        metrics: tuple[Mapping[str, Any], ...],
        global_parameters: Tensor,
        round: int,
        layout: Layout,
        buffers: tuple[Arrays, ...] = (),
        sources: tuple[int, ...] = (),
        modified: bool = False,
        num_usable: int | None = None,
        num_rejected: int = 0,
        global_state: Arrays = (),
        server_state: Mapping[str, Any] | None = None,
        members: tuple[tuple[int, ...], ...] = (),
    ):
        self._rows = updates if isinstance(updates, _Rows) else _Rows(updates)
        self.num_examples = num_examples
        self.client_ids = client_ids
        self.metrics = metrics
        self.global_parameters = global_parameters
        self.round = round
        self.layout = layout
        self.buffers = buffers
        self.sources = sources
        self.modified = modified
        self.num_usable = len(client_ids) if num_usable is None else num_usable
        self.num_rejected = num_rejected
        self.global_state = global_state
        self.server_state = server_state
        self.members = members or tuple((client_id,) for client_id in client_ids)

    def __len__(self) -> int:
        return len(self.client_ids)

    @property
    def updates(self) -> Tensor:
        """(n, d) float32; row i is client i's local minus global parameters."""
        return self._rows.updates

    @property
    def clients(self) -> tuple[int, ...]:
        """The ids of all clients that have a part in a row, in ascending order."""
        return tuple(sorted(client_id for group in self.members for client_id in group))

    def replace(self, **changes: Any) -> Self:
        """Return a cohort that differs in some of the attributes."""
        own = {key: value for key, value in vars(self).items() if key != "_rows"}
        return type(self)(**{"updates": self._rows, **own, **changes})

    def keep(self, rows: Sequence[int] | Tensor) -> Self:
        """Return the cohort of these rows, in ascending order.

        Args:
            rows: row numbers, or an (n,) boolean mask.
        """
        chosen = torch.as_tensor(rows)
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero().flatten()
        index = sorted(set(chosen.tolist()))
        if index == list(range(len(self))):
            return self
        return self.replace(
            updates=self._rows.keep(index),
            num_examples=self.num_examples[index],
            client_ids=tuple(self.client_ids[i] for i in index),
            metrics=tuple(self.metrics[i] for i in index),
            buffers=tuple(self.buffers[i] for i in index) if self.buffers else (),
            sources=tuple(self.sources[i] for i in index),
            members=tuple(self.members[i] for i in index),
        )

    def parts(self) -> tuple[Tensor, Tensor]:
        """Return a matrix and the (n,) numbers of those of its rows that are this cohort's updates; no copy."""
        return self._rows.parts()

    def gram(self) -> Tensor:
        """Return ``flsec.aggregation``'s robust Gram matrix of the updates, (n, n) float64 about a central row.

        It is computed once for a cohort and the cohorts kept from it, so that rules inside one another share it.
        """
        return self._rows.gram()

    def squared_distances(self) -> Tensor:
        """Return the (n, n) float64 squared distances of the updates, computed once like ``gram``."""
        return self._rows.squared_distances()

    def with_means(self, weights: Tensor) -> Self:
        """Return the cohort with weighted means of its rows for the same clients, made when somebody looks at them.

        Distances of the means follow from those of the rows, where those are known: a rule that goes by distances, such
        as Krum, then has the means made of the clients that it keeps, and of no others.

        Args:
            weights: (n, n) float64, at least 0; row i, of sum 1, makes client i's new row.
        """
        return self.replace(updates=self._rows.mixed(weights), modified=True)

    def with_updates(self, updates: Tensor) -> Self:
        """Return the cohort with other rows for the same clients; the replies are no longer handed on as sent.

        Args:
            updates: (n, d), the new rows.
        """
        expected = (len(self), self.layout.size)
        if tuple(updates.shape) != expected:
            raise ValueError(f"updates must have shape {expected}; got {tuple(updates.shape)}.")
        return self.replace(updates=updates.to(self.global_parameters.dtype), modified=True)
