"""Inner products of rows: what Krum, Bulyan, the geometric median, clipping and cosine defenses have in common.

Everything here reads the (n, d) matrix in column blocks that fit the cache, casts a block to float64, and keeps (n, n)
or (d,) results only. An (n, n) matrix of a hundred clients is then cheap to iterate on.
"""

import numbers
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsec.aggregation._device import device_of_blocks, kept_on
from flsec.aggregation._threads import in_threads
from flsec.errors import ConfigError

__all__ = [
    "check_byzantine",
    "check_minority",
    "check_updates",
    "check_weights",
    "column_blocks",
    "distances_of_means",
    "expand_squares",
    "float64_blocks",
    "gram",
    "gram_of_rows",
    "is_whole",
    "mixed_rows",
    "robust_gram",
    "rounded_gram",
    "row_norms",
    "scaled_rows",
    "squared_distances",
    "weighted_median",
    "weighted_sum",
]

Array = NDArray[Any]

_BLOCK = {"cpu": 2**20, "cuda": 2**25}  # float64 elements of one block: 8 MiB for caches, more to fill a GPU
_SMALLEST_BLOCK = 2**16
_PRODUCT_BLOCK = 2**18
_LEAST_SQUARE, _MOST_SQUARE = 1e-20, 1e36  # squared norms that float32 products are trusted with
_SAMPLE_ROWS, _SAMPLE_COLUMNS = 64, 1024  # what is looked at to guess a central row
_RECENTRE = 1e6  # squared distance to the reference over the best such distance; beyond it, take the better row
_CANCELLED = 1e-6  # |a - b|^2 below this share of |a|^2 + |b|^2 has lost too many digits: computed again


def check_updates(updates: Tensor, rule: str) -> int:
    """Return n after checking that ``updates`` is an (n, d) floating matrix with at least one row.

    Args:
        updates: what the rule was given.
        rule: the rule's name, for the message.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(updates, Tensor) or updates.ndim != 2 or not updates.is_floating_point():
        got = f"{tuple(updates.shape)} {updates.dtype}" if isinstance(updates, Tensor) else type(updates).__name__
        raise ConfigError(
            f"{rule} needs updates as a floating point matrix of shape (n, d), one row per client; got {got}. "
            f"Stack the flattened updates with torch.stack."
        )
    if updates.shape[0] < 1:
        raise ConfigError(f"{rule} needs at least 1 row in updates; got 0. Wait for a reply before aggregating.")
    return updates.shape[0]


def is_whole(value: object) -> bool:
    """Return whether ``value`` is an integer, Python's or numpy's."""
    return isinstance(value, numbers.Integral)


def check_byzantine(rule: str, n: int, num_byzantine: int, factor: int, unsafe: bool = False) -> None:
    """Raise ``ConfigError`` unless num_byzantine >= 0 and, where not ``unsafe``, n >= factor * num_byzantine + 3."""
    too_few = not unsafe and is_whole(num_byzantine) and n < factor * num_byzantine + 3
    if not is_whole(num_byzantine) or num_byzantine < 0 or too_few:
        raise ConfigError(
            f"{rule} needs a whole num_byzantine >= 0 and n >= {factor} * num_byzantine + 3; got num_byzantine="
            f"{num_byzantine}, n={n}. Sample more clients per round or lower num_byzantine."
        )


def check_minority(rule: str, n: int, num_byzantine: int) -> None:
    """Raise ``ConfigError`` unless num_byzantine >= 0 and n >= 2 * num_byzantine + 1."""
    if not is_whole(num_byzantine) or num_byzantine < 0 or n < 2 * num_byzantine + 1:
        raise ConfigError(
            f"{rule} needs a whole num_byzantine >= 0 and n >= 2 * num_byzantine + 1; got num_byzantine="
            f"{num_byzantine}, n={n}. Sample more clients per round or lower num_byzantine."
        )


def check_weights(weights: Tensor | None, updates: Tensor, rule: str) -> Tensor:
    """Return (n,) float64 weights that sum to 1, on the device of ``updates``; None means equal weights.

    Raises:
        ConfigError: wrong shape, a negative or not finite weight, or a sum of 0.
    """
    n = updates.shape[0]
    if weights is None:
        return torch.full((n,), 1.0 / n, dtype=torch.float64, device=updates.device)
    if not isinstance(weights, Tensor) or weights.shape != (n,):
        got = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise ConfigError(f"{rule} needs weights as a tensor of shape ({n},), one per row; got {got}.")
    weights = weights.detach().to(updates.device, torch.float64)
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise ConfigError(
            f"{rule} needs finite weights >= 0 that are not all 0; got {weights.tolist()}. "
            f"Give each row a count such as its number of examples, or None for equal weights."
        )
    weights = weights / weights.max()  # the sum of huge weights would overflow
    return weights / weights.sum()


def column_blocks(rows: int, columns: int, device: torch.device) -> Iterator[slice]:
    """Yield slices that cover the columns; a block of ``rows`` rows fits the cache as float64.

    A small matrix is cut as well, so that the blocks never take more than a fraction of its own memory.
    """
    width = _width(rows, columns, _BLOCK.get(device.type, _BLOCK["cpu"]))
    for start in range(0, columns, width):
        yield slice(start, min(start + width, columns))


def _width(rows: int, columns: int, largest: int) -> int:
    return max(1, min(largest, max(_SMALLEST_BLOCK, rows * columns // 32)) // max(1, rows))


def float64_blocks(
    updates: Tensor, rows: Tensor | None = None, origin: Tensor | None = None, device: torch.device | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (columns, float64 block of ``updates[rows] - origin``); every block reuses the same memory.

    Blocks are on ``device``; None: where the updates are.
    """
    count = updates.shape[0] if rows is None else rows.shape[0]
    device = device or updates.device
    updates = kept_on(updates, device)
    rows = None if rows is None else rows.to(updates.device)
    buffer: Tensor | None = None
    for columns in column_blocks(count, updates.shape[1], device):
        width = columns.stop - columns.start
        if buffer is None:
            buffer = torch.empty(count, width, dtype=torch.float64, device=device)
        source = updates[:, columns]
        block = buffer[:, :width].copy_(source if rows is None else source.index_select(0, rows))
        if origin is not None:
            block.sub_(origin[columns].to(block))  # float64: exact for neighbouring float32 values
        yield columns, block


def _sum_over_blocks(
    visit: Callable[[slice, Array], Array | float],
    updates: Tensor,
    rows: Tensor | None = None,
    origin: Tensor | None = None,
    elements: int | None = None,
    dtype: type[np.floating[Any]] = np.float64,
) -> Any:
    """Return the sum of ``visit(columns, block of updates[rows] - origin)``, computed in threads.

    For tensors in main memory. A block, of some ``elements`` of ``dtype``, is gone when ``visit`` returns.
    """
    values, origins = _as_numpy(updates), None if origin is None else _as_numpy(origin)
    chosen = None if rows is None else rows.numpy()
    n, d = len(values) if chosen is None else len(chosen), values.shape[1]
    width = _width(n, d, elements or _BLOCK["cpu"])

    def work(start: int, stop: int) -> Array | float:
        buffer = np.empty((n, min(width, stop - start)), dtype)
        total: Array | float = 0.0
        with np.errstate(all="ignore"):  # rows that are not finite
            for left in range(start, stop, width):
                columns = slice(left, min(left + width, stop))
                block = buffer[:, : columns.stop - left]
                source = values[:, columns] if chosen is None else values[chosen, columns]
                if origins is None:
                    np.copyto(block, source)
                else:  # neighbouring float32 values: exact in float64, and in float32 as well
                    np.subtract(source, origins[columns], out=block, dtype=dtype)
                total = visit(columns, block) + total
        return total

    return sum(in_threads(work, n, d))


def _as_numpy(values: Tensor) -> Array:
    values = values.detach()
    return (values if values.dtype in (torch.float32, torch.float64) else values.float()).numpy()


@torch.no_grad()
def _products(
    updates: Tensor, origin: Tensor | None, rows: Tensor | None = None, dtype: type[np.floating[Any]] = np.float64
) -> Tensor:
    n = updates.shape[0] if rows is None else rows.shape[0]
    device = device_of_blocks(updates)
    if device is None:
        # numpy knows that a matrix times its own transpose is symmetric, and does half the work. Narrow blocks fit
        # the cache, but not so narrow that adding up (n, n) results costs more than computing them.
        elements = max(_PRODUCT_BLOCK, 2 * n * n)

        def product(_: slice, block: Array) -> Array:
            return np.asarray(block @ block.T, dtype=np.float64)

        total = np.zeros((n, n)) + _sum_over_blocks(product, updates, rows, origin, elements, dtype)
        return torch.from_numpy(np.tril(total) + np.tril(total, -1).T)
    products = torch.zeros(n, n, dtype=torch.float64, device=device)
    for _, block in float64_blocks(updates, rows, origin, device):
        products.addmm_(block, block.T)
    return products.tril_().add_(products.tril(-1).T).to(updates.device)


@torch.no_grad()
def row_norms(updates: Tensor, origin: Tensor | None = None) -> Tensor:
    """Return the (n,) float64 Euclidean norms of the rows of ``updates - origin``; origin None means 0.

    A row with NaN or infinity, or with squares beyond float64 (values above 1e150), has norm NaN or infinity.
    """
    device = device_of_blocks(updates)
    squares = torch.zeros(updates.shape[0], dtype=torch.float64, device=device)
    if device is None:
        squares += torch.as_tensor(
            _sum_over_blocks(lambda _, b: np.einsum("ij,ij->i", b, b), updates, origin=origin)  # no copy of the squares
        )
    else:
        for _, block in float64_blocks(updates, origin=origin, device=device):
            squares += block.square_().sum(dim=1)
    return squares.sqrt_().to(updates.device)


@torch.no_grad()
def scaled_rows(updates: Tensor, factors: Tensor) -> Tensor:
    """Return factors[i] * updates[i], multiplied in float64, with the dtype of ``updates``.

    Args:
        updates: (n, d).
        factors: (n,).

    Returns:
        (n, d).
    """
    factors = factors.to(updates.device, torch.float64)[:, None]
    device = device_of_blocks(updates)
    if device is not None or updates.dtype not in (torch.float32, torch.float64):
        scaled = torch.empty_like(updates)
        for columns, block in float64_blocks(updates, device=device):
            scaled[:, columns] = block.mul_(factors.to(block.device))
        return scaled
    values, known, out = _as_numpy(updates), factors.numpy(), np.empty(updates.shape, _as_numpy(updates).dtype)

    def work(start: int, stop: int) -> None:
        columns = np.s_[:, start:stop]
        with np.errstate(all="ignore"):  # rows that are not finite
            np.multiply(values[columns], known, out=out[columns], dtype=np.float64, casting="same_kind")

    in_threads(work, *out.shape)
    return torch.from_numpy(out)


@torch.no_grad()
def weighted_sum(updates: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i weights[i] * updates[i], accumulated in float64, with the dtype of ``updates``.

    Args:
        updates: (n, d).
        weights: (n,), any sign, used as they are. Rows of weight 0 are not read: NaN in them does no harm.

    Returns:
        (d,).
    """
    rows = weights.nonzero().squeeze(1).to(updates.device)
    factors = weights.to(updates.device, torch.float64)[rows]
    total = torch.zeros(updates.shape[1], dtype=updates.dtype, device=updates.device)
    if len(rows) == 0:
        return total
    some = None if len(rows) == updates.shape[0] else rows
    device = device_of_blocks(updates)
    if device is None:
        known = factors.numpy()
        sums = total if total.dtype in (torch.float32, torch.float64) else total.float()

        def add(columns: slice, block: Array) -> float:
            sums.numpy()[columns] = known @ block
            return 0.0

        _sum_over_blocks(add, updates, some)
        return sums.to(total.dtype)
    for columns, block in float64_blocks(updates, some, device=device):
        total[columns] = (factors.to(block.device) @ block).to(total)
    return total


@torch.no_grad()
def mixed_rows(updates: Tensor, weights: Tensor) -> Tensor:
    """Return weights @ updates, multiplied in float64, with the dtype of ``updates``: one pass over memory.

    Args:
        updates: (n, d).
        weights: (m, n), at least 0, each row of sum 1. Rows of the updates that have weight 0 in all are not read: NaN
            in them does no harm. A row of NaN gives a row of NaN.

    Returns:
        (m, d).
    """
    mixed = torch.full((len(weights), updates.shape[1]), torch.nan, dtype=updates.dtype, device=updates.device)
    rows = (weights > 0).any(dim=0).nonzero().squeeze(1).to(updates.device)
    if len(rows) == 0:
        return mixed
    factors = weights.to(updates.device, torch.float64)[:, rows]
    some = None if len(rows) == updates.shape[0] else rows
    device = device_of_blocks(updates)
    if device is None:
        known = factors.numpy()
        means = mixed if mixed.dtype in (torch.float32, torch.float64) else mixed.float()

        def multiply(columns: slice, block: Array) -> float:
            means.numpy()[:, columns] = known @ block
            return 0.0

        _sum_over_blocks(multiply, updates, some)
        return means.to(mixed.dtype)
    for columns, block in float64_blocks(updates, some, device=device):
        mixed[:, columns] = (factors.to(block.device) @ block).to(mixed)
    return mixed


def distances_of_means(distances: Tensor, weights: Tensor) -> Tensor | None:
    """Return the squared distances of weighted means of rows from those of the rows, without looking at the rows.

    With weights p and q of sum 1 and squared distances D, the means are -(p - q) D (p - q) / 2 apart.

    Args:
        distances: (n, n), as ``squared_distances`` returned them.
        weights: (m, n), each row of sum 1. Equal rows are at distance 0 exactly.

    Returns:
        (m, m) float64; None where too few digits are left: means close together of rows far apart.
    """
    products = weights @ distances @ weights.T
    products = products.tril() + products.tril(-1).T
    spread = products.diagonal()[:, None] + products.diagonal()[None, :]
    between = products - spread / 2
    equal = torch.stack([(weights == row).all(dim=1) for row in weights])
    exact = equal | (between >= _CANCELLED * spread) & between.isfinite()
    return between.masked_fill(equal, 0.0) if bool(exact.all()) else None


def rounded_gram(updates: Tensor, center: Tensor) -> Tensor:
    """Return ``gram(updates, center)`` with products to about 1e-7 of the two rows' norms, in half the time.

    For weights of a mean, not for distances of rows that lie close together. The blocks of float32 rows on a CPU are
    multiplied in float32 and added up in float64; where float32 has no room for a row's square, all is done in float64.
    """
    if updates.dtype != torch.float32 or device_of_blocks(updates) is not None:
        return _products(updates, center)
    products = _products(updates, center, dtype=np.float32)
    squares = products.diagonal()
    has_room = (squares > _LEAST_SQUARE) & (squares < _MOST_SQUARE)
    return products if bool(has_room.all()) else _products(updates, center)


def gram(updates: Tensor, center: bool | Tensor = True) -> Tensor:
    """Return the (n, n) float64 inner products of rows about a common centre.

    Args:
        updates: (n, d).
        center: a (d,) point; False for the origin; True for a row in the middle of the majority (``robust_gram``),
            which makes squared distances and weighted means of rows exact to about 1e-10 even when all rows share an
            offset 1e5 times their spread or some rows are 1e12 times larger.

    Returns:
        (n, n), symmetric. A row that holds NaN or infinity has NaN or infinity in its own row and column only.
    """
    if isinstance(center, Tensor):
        return _products(updates, center)
    return robust_gram(updates)[0] if center else _products(updates, None)


@torch.no_grad()
def robust_gram(updates: Tensor, weights: Tensor | None = None) -> tuple[Tensor, int]:
    """Return the Gram matrix about a central row, and that row's index.

    The row has (to a factor of 1000) the smallest median distance to the others, so hostile rows, however far, cannot
    take away the digits that tell the honest rows apart. One pass over memory, a second one only when the
    first guess, made from a sample of columns, was bad.

    Args:
        updates: (n, d).
        weights: (n,) at least 0, for a weighted median; None means equal.
    """
    if weights is None:
        weights = torch.ones(updates.shape[0], dtype=torch.float64, device=updates.device)
    reference = _guess_reference(updates, weights)
    while True:
        products = _products(updates, updates[reference])
        best, medians = _central_row(products, weights)
        # each turn divides the reference's median distance by 1000 at least, so this ends
        known = products.diagonal()[reference].isfinite()
        if not bool(known) or bool(medians[reference] <= _RECENTRE * medians[best]):
            return products, reference
        reference = best


def _central_row(products: Tensor, weights: Tensor) -> tuple[int, Tensor]:
    """Return the finite row of the smallest median squared distance to the others, and these medians."""
    finite = products.diagonal().isfinite()
    medians = weighted_median(expand_squares(products), weights * finite)
    return int(torch.where(finite, medians, torch.inf).argmin()), medians


@torch.no_grad()
def gram_of_rows(products: Tensor, rows: Tensor) -> tuple[Tensor, int] | None:
    """Return ``robust_gram`` of some rows from the one of all, without looking at the rows.

    Args:
        products: (n, n), as ``robust_gram`` returned it.
        rows: (m,) row numbers, m at least 1.

    Returns:
        None where too few digits are left: the rows lie close together and far from what was the centre of all.
    """
    kept = products[rows][:, rows]
    reference, medians = _central_row(kept, torch.ones(len(rows), dtype=torch.float64, device=products.device))
    if not bool(kept[reference, reference] <= _RECENTRE * medians[reference]):
        return None
    along = kept[:, reference]
    return kept - along[:, None] - along[None, :] + kept[reference, reference], reference


def _guess_reference(updates: Tensor, weights: Tensor) -> int:
    n, d = updates.shape
    rows = torch.linspace(0, n - 1, min(n, _SAMPLE_ROWS), device=updates.device).long()
    sample = updates[:, :: max(1, d // _SAMPLE_COLUMNS)][:, :_SAMPLE_COLUMNS].to(torch.float64)
    distances = torch.cdist(sample[rows], sample, compute_mode="donot_use_mm_for_euclid_dist")
    medians = weighted_median(distances.nan_to_num_(nan=torch.inf), weights)
    guess = int(rows[medians.argmin()])
    if bool(row_norms(updates[guess : guess + 1]).isfinite()):
        return guess
    finite = row_norms(updates).isfinite()  # NaN outside the sampled columns: look at everything
    medians = torch.where(finite[rows], medians, torch.inf)
    return int(rows[medians.argmin()]) if bool(finite[rows].any()) else int(finite.long().argmax())


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Return the (m,) lower weighted median of each row: the least value with half of the weight at or below it.

    Args:
        values: (m, n).
        weights: (n,), at least 0.
    """
    ordered, order = values.sort(dim=1)
    reached = weights[order].cumsum(dim=1)
    position = (reached >= 0.5 * reached[:, -1:]).int().argmax(dim=1, keepdim=True)
    return ordered.gather(1, position).squeeze(1)


def expand_squares(products: Tensor) -> Tensor:
    """Return (n, n) squared distances from inner products: never negative, zero diagonal, infinite where not finite."""
    squares = products.diagonal()
    distances = (squares[:, None] + squares[None, :]).sub_(products, alpha=2)
    return distances.clamp_(min=0).nan_to_num_(nan=torch.inf, posinf=torch.inf).fill_diagonal_(0)


@torch.no_grad()
def squared_distances(updates: Tensor, products: Tensor | None = None) -> Tensor:
    """Return the (n, n) float64 squared Euclidean distances of the rows, each to about 1e-9 of itself.

    Never negative; symmetric; zero diagonal; identical rows are at 0 exactly. A row that holds NaN or infinity (or
    values above 1e150, whose squares float64 cannot hold) is infinitely far from all others.

    The expansion |a|^2 + |b|^2 - 2ab about a central row is exact enough for rows around it. Pairs that are much
    closer to each other than to that row (copies, a second cluster far away) are computed again about one of them.

    Args:
        updates: (n, d).
        products: (n, n), their ``robust_gram`` where it is known.
    """
    if products is None:
        products, _ = robust_gram(updates)
    distances, doubtful = _expand_and_doubt(products)
    while bool(doubtful.any()):
        pivot = doubtful.sum(dim=1).argmax()
        group = torch.cat([pivot[None], doubtful[pivot].nonzero().squeeze(1)])
        near, still_doubtful = _expand_and_doubt(_products(updates, updates[pivot], group))
        grid = (group[:, None], group[None, :])
        distances[grid] = torch.where(doubtful[grid], near, distances[grid])
        doubtful[grid] &= still_doubtful  # the pivot's own pairs are settled, so this ends
    return distances


def _expand_and_doubt(products: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distances, and which of them have lost too many digits to cancellation."""
    squares = products.diagonal()
    distances = expand_squares(products)
    doubtful = distances < _CANCELLED * (squares[:, None] + squares[None, :])
    return distances, doubtful.fill_diagonal_(False)
