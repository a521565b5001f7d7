import numpy as np
import numpy.typing as npt

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.metrics._images import Examples, matching_examples

__all__ = ["ssim"]

_SIGMA = 1.5  # of the Gaussian window, in pixels
_K1, _K2 = 0.01, 0.03


@explained
def ssim(
    reconstructed: Examples, original: Examples, *, peak: float = 1.0, window: int = 11
) -> npt.NDArray[np.float64]:
    """Return the structural similarity of each image: 1 for the same one, about 0 for an unrelated one.

    Means, variances and covariance are taken under a Gaussian window (standard deviation 1.5 pixels) that slides over
    all places where it fits; the index is averaged over the places and the channels.

    Args:
        reconstructed: (n, channels, height, width) images, compared one by one in this order.
        original: (n, channels, height, width) the true ones.
        peak: largest minus smallest possible value: 1 for pixels in [0, 1].
        window: height and width of the window in pixels, odd. Smaller images get the largest odd window that fits.

    Returns:
        (n,) numbers in [-1, 1].

    Raises:
        ConfigError: different shapes, no images, a peak that is not positive, or a window that is even or below 3.

    Example:
        >>> image = np.linspace(0, 1, 64).reshape(1, 1, 8, 8)
        >>> ssim(image, image)
        array([1.])
        >>> bool(ssim(1 - image, image) < 0)  # what rises in one falls in the other
        True

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004,
    Sec. III-B and III-C.
    """
    rebuilt, truth = matching_examples(reconstructed, original)
    if truth.ndim != 4:
        raise ConfigError(f"ssim compares images (n, channels, height, width); got shape {truth.shape}.")
    if not 0 < peak < np.inf:
        raise ConfigError(f"peak must be positive and finite, such as 1.0 for pixels in [0, 1]; got {peak}.")
    if window < 3 or window % 2 == 0:
        raise ConfigError(f"window must be odd and at least 3, such as 11; got {window}.")
    weights = _gaussian(min(window, *((side - 1) // 2 * 2 + 1 for side in truth.shape[2:])))
    mean_r, mean_t = _blurred(rebuilt, weights), _blurred(truth, weights)
    variance_r = _blurred(rebuilt**2, weights) - mean_r**2
    variance_t = _blurred(truth**2, weights) - mean_t**2
    covariance = _blurred(rebuilt * truth, weights) - mean_r * mean_t
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    index = ((2 * mean_r * mean_t + c1) * (2 * covariance + c2)) / (
        (mean_r**2 + mean_t**2 + c1) * (variance_r + variance_t + c2)
    )
    similarity: npt.NDArray[np.float64] = index.reshape(len(truth), -1).mean(axis=1)
    return similarity


def _gaussian(size: int) -> npt.NDArray[np.float64]:
    offsets = np.arange(size) - size // 2
    weights: npt.NDArray[np.float64] = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    return weights


def _blurred(images: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the weighted means of all windows that fit into the last two axes; the window is a product of two."""
    for axis in (2, 3):
        windows = np.lib.stride_tricks.sliding_window_view(images, len(weights), axis=axis)
        images = windows @ weights
    return images
