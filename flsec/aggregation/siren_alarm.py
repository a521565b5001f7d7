"""SIREN's alarm: arithmetic of two accuracies, which a client's process does without torch."""

from flsec.aggregation._siren_keys import AlarmRule
from flsec.parameters import Fraction, check_parameters

__all__ = ["siren_alarm"]


def siren_alarm(
    global_accuracy: float, own_accuracy: float, tolerance: Fraction = 0.04, rule: AlarmRule = "tolerance"
) -> bool:
    """Return whether a client raises the alarm.

    Args:
        global_accuracy: omega_t, of the global model on the client's held-out data, in [0, 1].
        own_accuracy: omega_t^(i), of the client's own last model there.
        tolerance: C_c.
        rule: ``"tolerance"``: the own model is better by more than C_c, as the text around the rule and the figures
            mean it. ``"paper"``: as printed, the global model is not better by C_c at least, which alarms whenever the
            two are alike. ``"relative"``: the global model is below (1 - C_c) times the own one, as in the released
            program's server.

    Returns:
        True for an alarm.

    Raises:
        ConfigError: no such rule, or a tolerance outside of [0, 1].

    Example:
        >>> [siren_alarm(0.80, 0.83, rule=rule) for rule in ("tolerance", "paper", "relative")]
        [False, True, False]

    Source: SIREN, Sec. 4.2 and Algorithm 1, line 18.
    """
    check_parameters(siren_alarm, {"tolerance": tolerance, "rule": rule}, name="siren_alarm")
    if rule == "paper":
        return _difference(global_accuracy, own_accuracy) < tolerance
    return falls_short(global_accuracy, own_accuracy, tolerance, rule)


def _difference(a: float, b: float) -> float:
    return round(a - b, 9)  # accuracies are fractions: 0.9 - 0.8 shall be 0.1


def falls_short(accuracy: float, best: float, tolerance: float, rule: AlarmRule) -> bool:
    """Return whether an accuracy is below the best one by more than the tolerance, as the rule has it."""
    if rule == "relative":
        return _difference(best - tolerance * best, accuracy) > 0
    difference = _difference(best, accuracy)
    return difference >= tolerance if rule == "paper" else difference > tolerance
