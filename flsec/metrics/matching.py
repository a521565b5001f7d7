from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.metrics._images import Examples, matching_examples
from flsec.metrics._labels import Labels, matching
from flsec.metrics.psnr import mse, psnr
from flsec.metrics.ssim import ssim
from flsec.randomness import numpy_generator

__all__ = ["ReconstructionScores", "Similarity", "match_examples", "reconstruction_scores"]


@explained
def match_examples(reconstructed: Examples, original: Examples) -> npt.NDArray[np.int64]:
    """Return which reconstruction belongs to which original: the pairs with the least total squared error.

    A gradient says nothing about the order of its batch, so that the best order is the attacker's due.

    Args:
        reconstructed: (n, ...) examples in any order.
        original: (n, ...) the true ones.

    Returns:
        (n,) row numbers; ``reconstructed[rows]`` is in the order of the originals.

    Raises:
        ConfigError: different shapes, or no examples.

    Example:
        >>> match_examples([[0.9], [0.1], [0.4]], [[0.0], [0.5], [1.0]])
        array([1, 2, 0])
    """
    from scipy.optimize import linear_sum_assignment  # a third of a second, and few runs rebuild data

    rebuilt, truth = (
        np.nan_to_num(array.reshape(len(array), -1), nan=1e6, posinf=1e6, neginf=-1e6)
        for array in matching_examples(reconstructed, original)
    )
    errors = np.stack([((rebuilt - row) ** 2).mean(axis=1) for row in truth])  # (originals, reconstructions)
    rows: npt.NDArray[np.int64] = linear_sum_assignment(errors)[1].astype(np.int64)
    return rows


@dataclass(frozen=True)
class Similarity:
    """How like the originals some images are, as means over the batch.

    Attributes:
        mse: mean squared error.
        psnr: in decibels; infinite if one of them is the original itself.
        ssim: None where the examples are no images.

    Example:
        >>> Similarity(mse=0.01, psnr=20.0, ssim=None).psnr
        20.0
    """

    mse: float
    psnr: float
    ssim: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class ReconstructionScores:
    """How well data was rebuilt, and what somebody gets who knows nothing about the client.

    Attributes:
        reconstruction: after the best matching.
        mean_image: the mean of other data of the same kind, given as the answer for every example.
        random_image: random examples of that data, after the best matching; mean over several draws.
        label_accuracy: share of right labels, after the same matching; None if no labels were given.
        rows: (n,), the reconstruction of each original.

    Example:
        >>> truth, others = np.eye(4)[:2], np.eye(4)[2:]
        >>> scores = reconstruction_scores(truth[::-1], truth, others)  # all is found, in another order
        >>> scores.rows.tolist(), scores.reconstruction.mse, scores.label_accuracy
        ([1, 0], 0.0, None)
    """

    reconstruction: Similarity
    mean_image: Similarity
    random_image: Similarity
    label_accuracy: float | None
    rows: npt.NDArray[np.int64]


@explained
def reconstruction_scores(
    reconstructed: Examples,
    original: Examples,
    other_data: Examples,
    *,
    labels: Labels | None = None,
    true_labels: Labels | None = None,
    peak: float = 1.0,
    seed: int = 0,
    num_draws: int = 20,
) -> ReconstructionScores:
    """Compare rebuilt examples with the true ones, next to two answers that leak nothing.

    Args:
        reconstructed: (n, ...) examples in any order.
        original: (n, ...) the true ones; channels first, if they are images.
        other_data: (m, ...) data of the same kind that the client does not have, such as other training images; at
            least n.
        labels: (n,) the label of each reconstruction.
        true_labels: (n,) those of the originals.
        peak: largest minus smallest possible value: 1 for pixels in [0, 1].
        seed: of the random images.
        num_draws: how often they are drawn.

    Returns:
        MSE, PSNR, SSIM of reconstruction and baselines, label accuracy, and the matching.

    Raises:
        ConfigError: shapes that do not fit, fewer other examples than needed, or labels without true labels.

    Example:
        >>> truth, others = np.eye(4)[:2], np.eye(4)[2:]
        >>> scores = reconstruction_scores(truth[::-1], truth, others, labels=[1, 0], true_labels=[0, 1])
        >>> scores.reconstruction.psnr, scores.mean_image.mse, scores.label_accuracy
        (inf, 0.375, 1.0)
    """
    rebuilt, truth = matching_examples(reconstructed, original)
    others, _ = matching_examples(other_data, other_data)
    if others.shape[1:] != truth.shape[1:] or len(others) < len(truth) or num_draws < 1:
        raise ConfigError(
            f"other_data needs at least {len(truth)} examples of shape {truth.shape[1:]}, and num_draws at least 1; "
            f"got other_data of shape {others.shape}, num_draws={num_draws}."
        )
    if (labels is None) != (true_labels is None):
        raise ConfigError("labels and true_labels go together; got only one of them.")
    rows = match_examples(rebuilt, truth)
    right = None
    if labels is not None and true_labels is not None:
        rebuilt_labels, truth_labels = matching(labels, true_labels)
        if len(truth_labels) != len(truth):
            raise ConfigError(f"labels needs one label per example, {len(truth)}; got {len(truth_labels)}.")
        right = float((rebuilt_labels[rows] == truth_labels).mean())
    rng = numpy_generator(seed, purpose="random images")
    draws = [others[rng.choice(len(others), len(truth), replace=False)] for _ in range(num_draws)]
    return ReconstructionScores(
        reconstruction=_similarity(rebuilt[rows], truth, peak),
        mean_image=_similarity(np.broadcast_to(others.mean(axis=0), truth.shape), truth, peak),
        random_image=_similarity(
            np.concatenate([draw[match_examples(draw, truth)] for draw in draws]),
            np.concatenate([truth] * num_draws),
            peak,
        ),
        label_accuracy=right,
        rows=rows,
    )


def _similarity(images: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], peak: float) -> Similarity:
    return Similarity(
        mse=float(mse(images, truth).mean()),
        psnr=float(psnr(images, truth, peak=peak).mean()),
        ssim=float(ssim(images, truth, peak=peak).mean()) if truth.ndim == 4 else None,
    )
