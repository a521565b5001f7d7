"""DeepSight: what output layers tell of the data clients trained on, and which clusters of clients are accepted."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsec.aggregation._filters import cosine_distances
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount

__all__ = ["deep_sight_accepts", "deep_sight_ddifs", "deep_sight_energies", "deep_sight_suspects"]

_FEWEST = 3  # rows that can be told into more and fewer
_LEAST_SHARE = 0.01  # of the largest energy
_LARGEST = 1e30  # of a ratio of probabilities
_WHOLE = 1e-9  # how far a share may be from another and still count as it


@torch.no_grad()
def deep_sight_energies(weights: Tensor, biases: Tensor) -> Tensor:
    """Return the normalised update energies (NEUPs): how much each output neuron changed, as shares.

    The energy of neuron p is e_p = |b_p| + sum_h |w_ph|, of the update of its bias and weights; its share is
    e_p^2 / sum_q e_q^2. Those of honest clients are spread over the classes they have; training data of
    backdoors are more alike.

    Args:
        weights: (n, p, h), floating point: the updates of the output layer's weights, p outputs. Not modified.
        biases: (n, p): the updates of its biases. Not modified.

    Returns:
        (n, p) float64, each row of sum 1; 0 for a row without change, and for one that holds NaN or infinity.

    Raises:
        ConfigError: the shapes do not fit.

    Follows the order of rows; invariant to a factor of each row. O(n p h) time.

    Example:
        >>> deep_sight_energies(torch.tensor([[[1.0, 1.0], [-2.0, 0.0]]]), torch.tensor([[1.0, 2.0]]))
        tensor([[0.3600, 0.6400]], dtype=torch.float64)

    Source: Rieger, Nguyen, Miettinen and Sadeghi, "DeepSight: Mitigating Backdoor Attacks in Federated Learning Through
        Deep Model Inspection", NDSS 2022. Some programs of it leave the squares out.
    """
    if weights.ndim != 3 or biases.shape != weights.shape[:2]:
        shapes = f"{tuple(weights.shape)} and {tuple(biases.shape)}"
        raise ConfigError(f"deep_sight_energies needs weights (n, p, h) and biases (n, p); got {shapes}.")
    energies = torch.stack([row.abs().sum(dim=1, dtype=torch.float64) for row in weights]) + biases.double().abs()
    squares = (energies / energies.amax(dim=1, keepdim=True).clamp(min=1e-300)).square()
    return (squares / squares.sum(dim=1, keepdim=True).clamp(min=1e-300)).nan_to_num(nan=0.0)


def deep_sight_suspects(energies: Tensor) -> Tensor:
    """Return which rows are suspicious: few of their output neurons changed much.

    A row's threshold exceedings are how many of its p energies are larger than max(0.01, 1 / p) times its largest. It
    is suspicious if it has no more than half of their median.

    Args:
        energies: (n, p), as ``deep_sight_energies`` returned them.

    Returns:
        (n,) bool.

    Raises:
        ConfigError: no (n, p) matrix with p at least 2.

    Follows the order of rows. O(n p) time.

    Example:
        >>> energies = torch.tensor([[0.3, 0.3, 0.4], [0.4, 0.2, 0.4], [0.0, 0.0, 1.0]])
        >>> deep_sight_suspects(energies)
        tensor([False, False,  True])

    Source: Rieger et al., NDSS 2022. Programs of it have 1 / p alone; up to 100 classes that is the same.
    """
    if energies.ndim != 2 or energies.shape[1] < 2:
        got = tuple(energies.shape)
        raise ConfigError(f"deep_sight_suspects needs energies (n, p) of at least 2 outputs; got {got}.")
    share = max(_LEAST_SHARE, 1 / energies.shape[1])
    exceedings = (energies > share * energies.amax(dim=1, keepdim=True)).sum(dim=1).double()
    return exceedings <= exceedings.quantile(0.5) / 2 if len(exceedings) else exceedings.bool()


def deep_sight_ddifs(local: Tensor, reference: Tensor) -> Tensor:
    """Return the division differences (DDifs): how a client's model changed its predictions of random inputs.

    Args:
        local: (m, p), logits of the client's model for m inputs.
        reference: (m, p), logits of the global model for the same.

    Returns:
        (p,) float64: the mean over the inputs of the predicted probability over that of the global model; 1e30 where it
        is larger or no number.

    Raises:
        ConfigError: the shapes do not fit.

    Of probabilities, not of logits: those cross zero. O(m p) time.

    Example:
        >>> deep_sight_ddifs(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([1., 1.], dtype=torch.float64)

    Source: Rieger et al., NDSS 2022.
    """
    if local.ndim != 2 or local.shape != reference.shape:
        shapes = f"{tuple(local.shape)} and {tuple(reference.shape)}"
        raise ConfigError(f"deep_sight_ddifs needs two (m, p) matrices of logits; got {shapes}.")
    ratios = (local.double().log_softmax(dim=1) - reference.double().log_softmax(dim=1)).exp()
    return ratios.mean(dim=0).nan_to_num(nan=_LARGEST, posinf=_LARGEST).clamp(max=_LARGEST)


@torch.no_grad()
def deep_sight_accepts(
    energies: Tensor,
    biases: Tensor,
    ddifs: Tensor,
    min_cluster_size: PositiveCount = 5,
    max_suspicious: float = 1 / 3,
) -> Tensor:
    """Return which rows lie in clusters with few suspicious ones.

    HDBSCAN clusters rows by their energies, by the cosines of their biases, and by their DDifs for each seed. Two rows
    are at distance 0 where they share a cluster and 1 where not; the mean of these, that of the seeds counting once, is
    clustered again. A row in no cluster is one of its own. A cluster is accepted if its share of suspicious rows is
    below ``max_suspicious``.

    Args:
        energies: (n, p), as ``deep_sight_energies`` returned them.
        biases: (n, p), the updates of the output layer's biases.
        ddifs: (s, n, p), the DDifs for each of s seeds.
        min_cluster_size: of HDBSCAN, at least 2.
        max_suspicious: tau in (0, 1].

    Returns:
        (n,) bool. Of fewer than 3 rows all are accepted.

    Raises:
        ConfigError: the shapes do not fit, or a setting is out of range.

    Follows the order of rows, up to rows of equal energies and biases. O(s n^2) time and O(n^2) memory.

    Example:
        >>> energies = torch.tensor([[0.3, 0.3, 0.4]] * 4 + [[0.0, 0.0, 1.0]] * 2)
        >>> deep_sight_accepts(energies, energies, energies[None], min_cluster_size=2)
        tensor([ True,  True,  True,  True, False, False])

    Source: Rieger et al., NDSS 2022; HDBSCAN's cluster size of 5 and the share of a third are those of programs of it.
        One of them accepts the clusters with few rows that are *not* suspicious; another clusters by similarities
        where distances are meant.
    """
    n = len(energies)
    if energies.ndim != 2 or biases.shape[:1] != (n,) or ddifs.ndim != 3 or ddifs.shape[1] != n:
        shapes = ", ".join(str(tuple(x.shape)) for x in (energies, biases, ddifs))
        raise ConfigError(f"deep_sight_accepts needs shapes (n, p), (n, p) and (s, n, p); got {shapes}.")
    if min_cluster_size < 2 or not 0 < max_suspicious <= 1:
        raise ConfigError(
            "deep_sight_accepts needs min_cluster_size >= 2 and 0 < max_suspicious <= 1; got "
            f"min_cluster_size={min_cluster_size}, max_suspicious={max_suspicious}. Try 5 and 1/3."
        )
    suspects = deep_sight_suspects(energies)
    if n < _FEWEST:
        return torch.ones_like(suspects)
    order = torch.from_numpy(np.lexsort((*_numpy(biases).T, *_numpy(energies).T)))  # ties fall as the values say
    labels = _ensemble(energies[order], biases[order], ddifs[:, order], min_cluster_size)
    accepted = torch.zeros(n, dtype=torch.bool)
    for label in set(labels.tolist()):
        members = order[torch.from_numpy(labels == label)]
        accepted[members] = float(suspects[members].double().mean()) < max_suspicious - _WHOLE
    return accepted.to(suspects.device)


def _ensemble(energies: Tensor, biases: Tensor, ddifs: Tensor, size: int) -> NDArray[np.int64]:
    """Return the (n,) labels of the final clusters."""
    wide = biases.double()
    by_bias = _apart(_cluster(_numpy(cosine_distances(wide @ wide.T)), size, "precomputed"))
    by_energy = _apart(_cluster(_numpy(energies), size))
    by_ddif = np.mean([_apart(_cluster(_numpy(part), size)) for part in ddifs], axis=0)
    return _cluster((by_bias + by_energy + by_ddif) / 3, size, "precomputed")


def _numpy(values: Tensor) -> NDArray[np.float64]:
    plain: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return plain


def _cluster(points: NDArray[np.float64], size: int, metric: str = "euclidean") -> NDArray[np.int64]:
    """Return labels; who is in no cluster has a negative one of its own."""
    n = len(points)
    alone = -1 - np.arange(n)
    if n < size:
        return alone
    from sklearn.cluster import HDBSCAN  # takes a second, and few runs use it

    with np.errstate(divide="ignore", invalid="ignore"):  # equal points
        labels = HDBSCAN(min_cluster_size=size, metric=metric, copy=True).fit(points).labels_
    return np.where(labels < 0, alone, labels)


def _apart(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    apart: NDArray[np.float64] = (labels[:, None] != labels[None, :]).astype(np.float64)
    return apart
