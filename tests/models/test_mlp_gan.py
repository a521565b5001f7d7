import pytest
import torch

from flsec.errors import ConfigError
from flsec.models import MLPGAN


def test_number_of_parameters_by_hand():
    generator = (16 + 1) * 32 + (32 + 1) * 32 + (32 + 1) * 64
    discriminator = (64 + 1) * 32 + (32 + 1) * 32 + (32 + 1)
    model = MLPGAN((1, 8, 8), 10, latent_size=16, hidden=32)
    assert sum(p.numel() for p in model.generator.parameters()) == generator
    assert sum(p.numel() for p in model.discriminator.parameters()) == discriminator
    assert sum(p.numel() for p in model.parameters()) == generator + discriminator


def test_generates_pixels_and_judges_images():
    model = MLPGAN((3, 5, 6), 10)
    images = model.generator(100 * torch.randn(7, model.latent_size))
    assert images.shape == (7, 3, 5, 6)
    assert ((images >= 0) & (images <= 1)).all()
    assert model(images).shape == model.discriminator(images).shape == (7,)


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"latent_size": 0}, {"latent_size": 2.5}])
def test_refuses_sizes_that_are_none(settings):
    with pytest.raises(ConfigError, match=f"model 'mlp_gan': {next(iter(settings))}"):
        MLPGAN((1, 8, 8), 10, **settings)


@pytest.mark.parametrize("shape", [(64,), (8, 8), ()])
def test_refuses_what_is_no_image(shape):
    with pytest.raises(ConfigError, match=r"input_shape|takes images"):
        MLPGAN(shape, 10)
