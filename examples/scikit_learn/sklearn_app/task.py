"""Model and data: scikit-learn's logistic regression and handwritten digits, dealt out to the clients."""

from functools import cache

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

NUM_TEST = 360


@cache
def _shuffled() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return x[order] / 16, y[order]


def load_data(partition_id: int, num_partitions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one client's training data."""
    x, y = _shuffled()
    part = slice(NUM_TEST + partition_id, None, num_partitions)
    return x[part], y[part]


def load_test_data() -> tuple[np.ndarray, np.ndarray]:
    """Return the server's test data."""
    x, y = _shuffled()
    return x[:NUM_TEST], y[:NUM_TEST]


def initial_parameters() -> list[np.ndarray]:
    """Return the coefficients (10, 64) and the intercepts (10,) to start from."""
    return [np.zeros((10, 64)), np.zeros(10)]


def model_with(parameters: list[np.ndarray], iterations: int = 1) -> LogisticRegression:
    """Return a model that goes on from these parameters when it is fitted."""
    model = LogisticRegression(warm_start=True, max_iter=iterations)
    model.coef_, model.intercept_ = (array.copy() for array in parameters)
    model.classes_ = np.arange(10)
    return model
