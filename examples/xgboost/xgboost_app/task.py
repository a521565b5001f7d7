"""Data and trees. The question is whether a digit is above four: Flower's bagging knows two classes only."""

from functools import cache

import numpy as np
import xgboost as xgb
from sklearn.datasets import load_digits

NUM_TEST = 360
PARAMETERS = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.3, "nthread": 1, "seed": 0}


@cache
def _shuffled() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return x[order], (y[order] > 4).astype(float)


def load_data(partition_id: int, num_partitions: int) -> xgb.DMatrix:
    """Return one client's training data."""
    x, y = _shuffled()
    part = slice(NUM_TEST + partition_id, None, num_partitions)
    return xgb.DMatrix(x[part], label=y[part])


def grown(model: bytes, data: xgb.DMatrix) -> bytes:
    """Return one tree more for a forest, as JSON; an empty forest has no bytes."""
    if not model:
        return bytes(xgb.train(PARAMETERS, data, num_boost_round=1).save_raw("json"))
    booster = xgb.Booster(PARAMETERS)
    booster.load_model(bytearray(model))
    booster.update(data, booster.num_boosted_rounds())
    return bytes(booster[booster.num_boosted_rounds() - 1 :].save_raw("json"))


def accuracy(model: bytes) -> float:
    """Return a forest's accuracy on the server's test data."""
    x, y = _shuffled()
    booster = xgb.Booster(PARAMETERS)
    booster.load_model(bytearray(model))
    return float(((booster.predict(xgb.DMatrix(x[:NUM_TEST])) > 0.5) == y[:NUM_TEST]).mean())
