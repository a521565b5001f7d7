"""Model, data and training in plain NumPy: softmax regression on scikit-learn's handwritten digits."""

from functools import cache

import numpy as np
from sklearn.datasets import load_digits

NUM_TEST = 360


@cache
def _shuffled() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return (x[order] / 16).astype(np.float32), y[order]


def load_data(partition_id: int, num_partitions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one client's training data."""
    x, y = _shuffled()
    part = slice(NUM_TEST + partition_id, None, num_partitions)
    return x[part], y[part]


def initial_weights() -> dict[str, np.ndarray]:
    """Return the weights to start from."""
    return {"weight": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}


def train(weights, x, y, epochs: int, learning_rate: float) -> dict[str, np.ndarray]:
    """Return the weights after gradient descent in batches of 16."""
    weight, bias = weights["weight"].copy(), weights["bias"].copy()
    for start in [*range(0, len(y), 16)] * epochs:
        inputs, labels = x[start : start + 16], y[start : start + 16]
        logits = inputs @ weight + bias
        error = np.exp(logits - logits.max(1, keepdims=True))
        error /= error.sum(1, keepdims=True)
        error[np.arange(len(labels)), labels] -= 1
        weight -= learning_rate * inputs.T @ error / len(labels)
        bias -= learning_rate * error.mean(0)
    return {"weight": weight, "bias": bias}


def test_accuracy(weights) -> float:
    """Return the accuracy on the server's test data."""
    x, y = _shuffled()
    return float(((x @ weights["weight"] + weights["bias"]).argmax(1) == y)[:NUM_TEST].mean())
