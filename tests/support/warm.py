"""Imported by the fork server of deployments: what every client of an experiment imports and builds once."""

from flsec.simulations.checks import check_data
from flsec.simulations.config import make_config

check_data(
    make_config(
        {
            "name": "warm",
            "data": {"name": "digits"},
            "model": {"name": "softmax"},
            "training": {"learning_rate": 0.1},
            "defenses": [{"name": "median"}],
            "attacks": [{"name": "sign_flipping"}],
            "adversaries": {"count": 1},
            "simulation": {"num_clients": 5},
        }
    )
)
