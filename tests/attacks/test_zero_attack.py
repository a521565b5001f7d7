import numpy as np

from flsec.attacks import zero_attack


def test_every_weight_is_zero():
    global_params = [np.ones((2, 3)), np.array(7), np.ones(2, dtype=np.float32)]
    local_params = [np.full((2, 3), -4.0), np.array(9), np.full(2, np.nan, dtype=np.float32)]
    uploaded = zero_attack(global_params, local_params)
    assert [array.tolist() for array in uploaded] == [[[0.0] * 3] * 2, 9, [0.0, 0.0]]
