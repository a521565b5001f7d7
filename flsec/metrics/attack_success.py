from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.metrics._labels import Labels, matching

__all__ = ["attack_success_rate", "source_to_target_rate"]


@explained
def attack_success_rate(predictions: Labels, true_labels: Labels, target: int) -> float | None:
    """Return how often a trigger turns an example of another class into the attacker's target.

    Examples whose true label is the target do not count: predicting the target is right for them, with or without
    an attack, so they would credit the attacker with up to 1/C from the start.

    Args:
        predictions: (n,) labels predicted on data that carries the trigger.
        true_labels: (n,) the labels of these examples before the attack.
        target: the label that the attacker wants.

    Returns:
        A number in [0, 1]; None if no example has another true label than the target.

    Raises:
        ConfigError: not integer vectors of one length.

    Example:
        >>> attack_success_rate([7, 7, 7, 1], [7, 0, 2, 1], target=7)  # two of the three that are not 7
        0.6666666666666666

    Source: Gu et al. 2017 (BadNets); FedInv, "Performance Metrics".
    """
    predicted, truth = matching(predictions, true_labels)
    counted = predicted[truth != target]
    return float((counted == target).mean()) if len(counted) else None


@explained
def source_to_target_rate(predictions: Labels, true_labels: Labels, source: int, target: int) -> float | None:
    """Return the share of the examples of one class that the model takes for another.

    The success of an attack without trigger: label flipping 3 -> 9, a semantic backdoor 4 -> 9.

    Args:
        predictions: (n,) labels predicted on clean data.
        true_labels: (n,) true labels.
        source: the class under attack.
        target: the label that the attacker wants for it.

    Returns:
        A number in [0, 1]; None if there are no examples of the source class.

    Raises:
        ConfigError: source and target are the same, or not integer vectors of one length.

    Example:
        >>> source_to_target_rate([9, 4, 9, 9], [4, 4, 9, 1], source=4, target=9)
        0.5

    Source: DiverseFL, Fig. 6 ("accuracy of the model on the backdoor task").
    """
    if source == target:
        raise ConfigError(f"source and target must differ, or nothing is attacked; got {source} for both.")
    predicted, truth = matching(predictions, true_labels)
    counted = predicted[truth == source]
    return float((counted == target).mean()) if len(counted) else None
