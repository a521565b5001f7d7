"""Settings of the tests at the boundary to Flower."""

import logging

import pytest
import torch

from flsec._contracts.server import identify


@pytest.fixture(autouse=True)
def _flower():
    identify()
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _quiet():
    """Flower prints each failure: thousands of lines here."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
