"""What things are called where people read: in figures and on pages. One spelling of each, and one place for them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["distinct_labels", "readable", "readable_measure"]

# Proper names, as their papers write them. All else is said in plain words: "sign_flipping", "SignFlipping" and
# "sign flipping" are one, so that a method that is not named here reads well too.
_PROPER = (
    "A3FL",
    "AGR-tailored|agr_tailored",
    "ALIE",
    "AlignIns",
    "Auror",
    "BadNets",
    "Bulyan",
    "CAF",
    "CRFL",
    "Chameleon",
    "CIFAR-10|cifar10",
    "CIFAR-100|cifar100",
    "DBA",
    "DeepSight",
    "DiverseFL",
    "FEMNIST",
    "FLAME",
    "FLANDERS",
    "FLDetector",
    "FL-WBC|flwbc",
    "FLTrust",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedGKT",
    "FedInv",
    "FedNova",
    "FedProx",
    "FedYogi",
    "FetchSGD",
    "FoolsGold",
    "HAR",
    "IID",
    "IPM",
    "Krum",
    "LASA",
    "LeNet",
    "LSTM",
    "MLP",
    "MNIST",
    "Fashion-MNIST|fashion_mnist",
    "Min-Max|min_max",
    "Min-Sum|min_sum",
    "MoNNA",
    "Multi-Krum|multi_krum",
    "Neurotoxin",
    "OracleSGD",
    "PubMedQA",
    "RFA",
    "RFLBAT",
    "RSA",
    "ResNet",
    "SCAFFOLD",
    "SIREN",
    "SLSGD",
    "SMEA",
    "SignGuard",
    "Soteria",
    "SparseFed",
    "VGG-11|vgg11",
    "Zeno",
)
_SPELT = {re.sub(r"[^a-z0-9]", "", entry.split("|")[-1].lower()): entry.split("|")[0] for entry in _PROPER}
_WORDS = {"alie": "ALIE", "ipm": "IPM", "dp": "DP", "krum": "Krum"}  # within a longer name

_MEASURES = {
    "accuracy": "test accuracy",
    "best_accuracy": "best test accuracy",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "mse": "MSE",
    "label_accuracy": "labels found",
    "false_positive_rate": "false alarms",
    "recall": "attackers dropped",
    "precision": "dropped that were attackers",
    "l1_to_attack_free": "L1 distance to the attack-free model",
    "cost_of_defense": "cost of defense",
}


def readable(name: str) -> str:
    """Return the name of a defense, an attack, a model or a data set as people write it.

    Args:
        name: of a class, or in YAML; of a class in a package of one's own, its path.

    Example:
        >>> [readable(name) for name in ("multi_krum", "MultiKrum", "SignFlipping", "weak_dp", "my.module:MyRule")]
        ['Multi-Krum', 'Multi-Krum', 'sign flipping', 'weak DP', 'my rule']
    """
    name = re.split(r"[:.]", name)[-1]
    known = _SPELT.get(re.sub(r"[^a-z0-9]", "", name.lower()))
    if known is not None:
        return known
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).replace("_", " ")
    return " ".join(_WORDS.get(word.lower(), word.lower()) for word in split.split())


def readable_measure(name: str) -> str:
    """Return the name of a measure in words.

    Example:
        >>> readable_measure("accuracy"), readable_measure("source_to_target_3_9")
        ('test accuracy', 'class 3 taken for 9')
    """
    taken = re.fullmatch(r"source_to_target_(\d+)_(\d+)", name)
    if taken is not None:
        return f"class {taken[1]} taken for {taken[2]}"
    return _MEASURES.get(name, name.replace("_", " "))


def distinct_labels(entries: Iterable[Sequence[Mapping[str, Any]]], nothing: str) -> dict[str, str]:
    """Return a label for each of several lists of named settings; those that share names are told apart by parameters.

    Args:
        entries: lists of defenses or of attacks, as a run's configuration has them.
        nothing: what an empty list is called.

    Returns:
        {``repr`` of the list: label}.

    Example:
        >>> lists = [[], [{"name": "ipm", "epsilon": 0.5}], [{"name": "ipm", "epsilon": 10.0}], [{"name": "alie"}]]
        >>> list(distinct_labels(lists, "no attack").values())
        ['no attack', 'IPM (epsilon 0.5)', 'IPM (epsilon 10.0)', 'ALIE']
    """
    lists = {repr(entry): entry for entry in entries}
    plain = {key: " + ".join(readable(str(one.get("name"))) for one in entry) for key, entry in lists.items()}
    labels = {}
    for key, entry in lists.items():
        others = [lists[other] for other in lists if plain[other] == plain[key] and len(lists[other]) == len(entry)]
        labels[key] = " + ".join(_told(one, [other[i] for other in others]) for i, one in enumerate(entry)) or nothing
    return labels


def _told(entry: Mapping[str, Any], namesakes: Sequence[Mapping[str, Any]]) -> str:
    keys = [key for key in entry if any(other.get(key) != entry[key] for other in namesakes)]
    told = ", ".join(f"{key.replace('_', ' ')} {'none' if entry[key] is None else entry[key]}" for key in keys)
    return readable(str(entry.get("name"))) + (f" ({told})" if told else "")
