"""Data sets, one function a file."""

from typing import TYPE_CHECKING

from flsec._lazy import export_lazily

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.data.datasets.cifar10 import cifar10 as cifar10
    from flsec.data.datasets.digits import digits as digits
    from flsec.data.datasets.fashion_mnist import fashion_mnist as fashion_mnist
    from flsec.data.datasets.har import har as har
    from flsec.data.datasets.mnist import mnist as mnist
    from flsec.data.datasets.newsgroups import newsgroups as newsgroups
    from flsec.data.datasets.newsgroups_mini import newsgroups_mini as newsgroups_mini
    from flsec.data.datasets.pubmedqa import pubmedqa as pubmedqa
    from flsec.data.datasets.shakespeare import shakespeare as shakespeare

__all__ = [
    "cifar10",
    "digits",
    "fashion_mnist",
    "har",
    "mnist",
    "newsgroups",
    "newsgroups_mini",
    "pubmedqa",
    "shakespeare",
]

export_lazily(
    __name__,
    {
        "cifar10": "cifar10",
        "digits": "digits",
        "fashion_mnist": "fashion_mnist",
        "har": "har",
        "mnist": "mnist",
        "newsgroups": "newsgroups",
        "newsgroups_mini": "newsgroups_mini",
        "pubmedqa": "pubmedqa",
        "shakespeare": "shakespeare",
    },
)
# End of exports.
