"""Data sets, ways to deal them out to clients, and the arrays that hold them. No Flower here."""

from typing import TYPE_CHECKING

from flsec._lazy import export_lazily
from flsec.registry import Registry

DATASETS = Registry("data set", "flsec.data.datasets")
PARTITIONERS = Registry("partitioner", "flsec.data.partitioners")

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.data.augmentation import Augmentation as Augmentation
    from flsec.data.build import load_dataset as load_dataset
    from flsec.data.build import make_partition as make_partition
    from flsec.data.partition import Partition as Partition
    from flsec.data.root import carve_root as carve_root
    from flsec.data.source import ArrayDataset as ArrayDataset
    from flsec.data.source import DataSource as DataSource
    from flsec.data.subset import take_subset as take_subset
    from flsec.data.text import Texts as Texts
    from flsec.data.text import text_source as text_source
    from flsec.data.training_data import TrainingData as TrainingData
    from flsec.data.training_data import training_data as training_data
    from flsec.data.vocabulary import LEAF_ALPHABET as LEAF_ALPHABET
    from flsec.data.vocabulary import CharacterVocabulary as CharacterVocabulary
    from flsec.data.vocabulary import PretrainedVocabulary as PretrainedVocabulary
    from flsec.data.vocabulary import Vocabulary as Vocabulary
    from flsec.data.vocabulary import WordVocabulary as WordVocabulary
    from flsec.data.vocabulary import words_of as words_of

__all__ = [
    "DATASETS",
    "LEAF_ALPHABET",
    "PARTITIONERS",
    "ArrayDataset",
    "Augmentation",
    "CharacterVocabulary",
    "DataSource",
    "Partition",
    "PretrainedVocabulary",
    "Texts",
    "TrainingData",
    "Vocabulary",
    "WordVocabulary",
    "carve_root",
    "load_dataset",
    "make_partition",
    "take_subset",
    "text_source",
    "training_data",
    "words_of",
]

export_lazily(
    __name__,
    {
        "LEAF_ALPHABET": "vocabulary",
        "ArrayDataset": "source",
        "Augmentation": "augmentation",
        "CharacterVocabulary": "vocabulary",
        "DataSource": "source",
        "Partition": "partition",
        "PretrainedVocabulary": "vocabulary",
        "Texts": "text",
        "TrainingData": "training_data",
        "Vocabulary": "vocabulary",
        "WordVocabulary": "vocabulary",
        "carve_root": "root",
        "load_dataset": "build",
        "make_partition": "build",
        "take_subset": "subset",
        "text_source": "text",
        "training_data": "training_data",
        "words_of": "vocabulary",
    },
)
# End of exports.
