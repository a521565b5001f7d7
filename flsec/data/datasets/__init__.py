"""Data sets, one function a file."""

from typing import TYPE_CHECKING

from flsec._lazy import export_lazily

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.data.datasets.chars74k import chars74k as chars74k
    from flsec.data.datasets.cifar10 import cifar10 as cifar10
    from flsec.data.datasets.cifar100 import cifar100 as cifar100
    from flsec.data.datasets.csv import csv as csv
    from flsec.data.datasets.digits import digits as digits
    from flsec.data.datasets.fashion_mnist import fashion_mnist as fashion_mnist
    from flsec.data.datasets.femnist import femnist as femnist
    from flsec.data.datasets.har import har as har
    from flsec.data.datasets.huggingface import huggingface as huggingface
    from flsec.data.datasets.image_folder import image_folder as image_folder
    from flsec.data.datasets.jsonl import jsonl as jsonl
    from flsec.data.datasets.mnist import mnist as mnist
    from flsec.data.datasets.mnist_writers import mnist_writers as mnist_writers
    from flsec.data.datasets.newsgroups import newsgroups as newsgroups
    from flsec.data.datasets.newsgroups_mini import newsgroups_mini as newsgroups_mini
    from flsec.data.datasets.npz import npz as npz
    from flsec.data.datasets.pubmedqa import pubmedqa as pubmedqa
    from flsec.data.datasets.reddit import reddit as reddit
    from flsec.data.datasets.shakespeare import shakespeare as shakespeare

__all__ = [
    "chars74k",
    "cifar10",
    "cifar100",
    "csv",
    "digits",
    "fashion_mnist",
    "femnist",
    "har",
    "huggingface",
    "image_folder",
    "jsonl",
    "mnist",
    "mnist_writers",
    "newsgroups",
    "newsgroups_mini",
    "npz",
    "pubmedqa",
    "reddit",
    "shakespeare",
]

export_lazily(
    __name__,
    {
        "chars74k": "chars74k",
        "cifar10": "cifar10",
        "cifar100": "cifar100",
        "csv": "csv",
        "digits": "digits",
        "fashion_mnist": "fashion_mnist",
        "femnist": "femnist",
        "har": "har",
        "huggingface": "huggingface",
        "image_folder": "image_folder",
        "jsonl": "jsonl",
        "mnist": "mnist",
        "mnist_writers": "mnist_writers",
        "newsgroups": "newsgroups",
        "newsgroups_mini": "newsgroups_mini",
        "npz": "npz",
        "pubmedqa": "pubmedqa",
        "reddit": "reddit",
        "shakespeare": "shakespeare",
    },
)
# End of exports.
