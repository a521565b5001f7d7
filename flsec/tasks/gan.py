from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import adaptive_avg_pool2d, softplus

from flsec.errors import ConfigError
from flsec.tasks._frechet import frechet_distance, moments
from flsec.tasks.base import Inputs, Labels, Task

__all__ = ["GAN"]

_NUM_FAKES = 1024  # images that the generator is judged by, from the same noise each time
_COARSE = 8  # pixels a side


class _Judged(NamedTuple):
    real: Tensor  # (n,) the discriminator's logits
    fake: Tensor  # (_NUM_FAKES,)
    real_pixels: Tensor  # (n, d)
    fake_pixels: Tensor  # (_NUM_FAKES, d)


@dataclass(frozen=True, kw_only=True)
class GAN(Task):
    """Images like the clients', by a generator and a discriminator that train together and are averaged together.

    Inputs are images (n, c, height, width). A client steps on both at once: the discriminator along the gradient of its
    cross-entropy, real against generated images; the generator along that of the non-saturating loss, -log D(G(z)).
    Neither sees the other's gradient. A model has ``generator``, ``discriminator`` and ``latent_size``, as
    ``flsec.models.MLPGAN``. Labels are not looked at, so attacks on labels are refused; partitioners may deal images
    out by their labels all the same.

    Judged by ``accuracy``, the discriminator's share of right calls, real and generated images weighing the same. It
    measures a balance, not quality: 0.5 is what a discriminator reaches that cannot tell the two apart, because the
    generator is good or because the discriminator is bad; 1 says that every generated image is seen through.
    ``pixel_frechet_distance`` measures the images without any network: the squared Frechet distance between Gaussians
    fitted to the pixels, averaged to 8 x 8, of the test images and of 1024 generated from the same noise each time.
    0: the same means and covariances. It is no FID and compares with none; nor does it see what means and covariances
    do not. The evaluation's loss is the sum of ``discriminator_loss`` and ``generator_loss``.

    Example:
        >>> GAN().inputs, GAN().labels
        ('numbers', 'none')

    Source: Rasouli, Sun and Rajagopal, "FedGAN", 2020, Algorithm 1 (both networks step on a client and are averaged;
    equal learning rates here); Goodfellow et al., NeurIPS 2014, Sec. 3 (losses).
    """

    inputs: ClassVar[Inputs] = "numbers"

    @property
    def labels(self) -> Labels:
        """None."""
        return "none"

    def batch_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of both losses, in which each reaches its own network's parameters only; see ``Task``.

        Noise is drawn from torch's global generator, which ``flsec.training.train`` seeds.
        """
        discriminator: Any = model.discriminator
        noise = torch.randn(len(x), _latent_size(model), dtype=x.dtype, device=x.device)
        fakes = model.generator(noise)  # type: ignore[operator]
        fixed = {name: value.detach() for name, value in discriminator.named_parameters()}
        judged = functional_call(discriminator, fixed, (fakes,))
        return _discriminator_loss(discriminator(x), discriminator(fakes.detach())) + _generator_loss(judged)

    def outputs(self, model: nn.Module, x: Tensor, places: Tensor | None = None) -> _Judged:
        """Return the discriminator's logits of real and of generated images, and the pixels of both; see ``Task``."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(_NUM_FAKES, _latent_size(model), generator=generator).to(x)
        fakes = model.generator(noise)  # type: ignore[operator]
        discriminator: Any = model.discriminator
        return _Judged(discriminator(x), discriminator(fakes), _coarse(x), _coarse(fakes))

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Return the sum of discriminator's and generator's losses; see ``Task``."""
        return _discriminator_loss(outputs.real, outputs.fake) + _generator_loss(outputs.fake)

    def num_counted(self, labels: Tensor) -> int:
        """Return the number of real images."""
        return len(labels)

    def predictions(self, outputs: Any) -> Tensor:
        """Return 1 for each real image that the discriminator takes for real, and 0 for the others, (n,)."""
        real: Tensor = outputs.real
        return (real > 0).long()

    def tallies(self, outputs: Any, labels: Tensor) -> dict[str, tuple[Tensor, int]]:
        """Return the sums of accuracy, losses, and the moments of pixels; see ``Task``.

        What is generated does not depend on the batch, so it counts as often as the batch has real images.
        """
        n = len(labels)
        right = (outputs.real > 0).double().sum() + n * (outputs.fake <= 0).double().mean()
        return {
            "accuracy": (right, 2 * n),
            "discriminator_loss": (n * _discriminator_loss(outputs.real, outputs.fake), n),
            "generator_loss": (n * _generator_loss(outputs.fake), n),
            "real_moments": (n * moments(outputs.real_pixels), n),
            "fake_moments": (n * moments(outputs.fake_pixels), n),
        }

    def summary(self, loss: float, means: Mapping[str, Any]) -> dict[str, float]:
        """Return accuracy, both losses and the distance of pixels; see ``Task``."""
        numbers = {name: mean for name, mean in means.items() if not name.endswith("_moments")}
        return {
            **numbers,
            "pixel_frechet_distance": frechet_distance(means["real_moments"], means["fake_moments"]),
        }

    def classes(self, labels: Tensor) -> Tensor | None:
        """Return None: what is predicted is real or generated, and no class."""
        return None

    def check_model(self, model: nn.Module, x: Tensor, num_classes: int) -> None:
        """Raise ``ConfigError`` unless there are images, and a generator and a discriminator of such; see ``Task``."""
        missing = [name for name in ("generator", "discriminator", "latent_size") if not hasattr(model, name)]
        if missing:
            raise ConfigError(
                f"must have a generator, a discriminator and a latent_size for the task gan; it has no {missing[0]}. "
                "For example: mlp_gan"
            )
        if x.ndim != 4:
            raise ConfigError(f"needs images (channels, height, width) for the task gan; got {tuple(x.shape[1:])}.")
        with torch.no_grad():
            fakes = model.generator(torch.zeros(2, _latent_size(model)).to(x))  # type: ignore[operator]
            logits = model.discriminator(x)  # type: ignore[operator]
        for network, got, wanted in (("generator", fakes, x), ("discriminator", logits, x[:, 0, 0, 0])):
            if got.shape != wanted.shape:
                raise ConfigError(
                    f"must have a {network} that returns {tuple(wanted.shape)} for two samples; got {tuple(got.shape)}."
                )


def _latent_size(model: nn.Module) -> int:
    size: Any = model.latent_size
    return int(size)


def _discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(-real).mean() + softplus(fake).mean()


def _generator_loss(fake: Tensor) -> Tensor:
    return softplus(-fake).mean()


def _coarse(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    return adaptive_avg_pool2d(images, (min(_COARSE, height), min(_COARSE, width))).flatten(1)
