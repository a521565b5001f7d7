import numpy as np
import numpy.typing as npt

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.metrics._images import Examples, matching_examples

__all__ = ["mse", "psnr"]


@explained
def mse(reconstructed: Examples, original: Examples) -> npt.NDArray[np.float64]:
    """Return the mean squared error of each example.

    Args:
        reconstructed: (n, ...) examples, compared one by one in this order.
        original: (n, ...) the true ones.

    Returns:
        (n,); NaN where the reconstruction has a NaN.

    Raises:
        ConfigError: different shapes, or no examples.

    Example:
        >>> mse([[0.5, 0.5], [0.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]])
        array([0. , 0.5])
    """
    rebuilt, truth = matching_examples(reconstructed, original)
    error: npt.NDArray[np.float64] = ((rebuilt - truth) ** 2).reshape(len(truth), -1).mean(axis=1)
    return error


@explained
def psnr(reconstructed: Examples, original: Examples, *, peak: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each example, 10 log10(peak^2 / mse), in decibels.

    Above 30 dB two images look the same; 10 dB is what a grey image gets.

    Args:
        reconstructed: (n, ...) examples, compared one by one in this order.
        original: (n, ...) the true ones.
        peak: largest minus smallest possible value: 1 for pixels in [0, 1].

    Returns:
        (n,); infinite where both are the same.

    Raises:
        ConfigError: different shapes, no examples, or a peak that is not positive.

    Example:
        >>> psnr([[0.1, 0.1]], [[0.0, 0.0]]).round(6)
        array([20.])
    """
    if not 0 < peak < np.inf:
        raise ConfigError(f"peak must be positive and finite, such as 1.0 for pixels in [0, 1]; got {peak}.")
    error = mse(reconstructed, original)
    decibels = np.full(len(error), np.inf)
    decibels[error != 0] = 10 * np.log10(peak**2 / error[error != 0])
    return decibels
