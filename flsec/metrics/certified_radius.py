"""How far an attacker can move the model that SparseFed trains, as far as its theory goes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.parameters import Fraction, NonNegative, Positive, PositiveCount, check_parameters
from flsec.training import Training

__all__ = [
    "SOFTMAX_LIPSCHITZ",
    "certified_radius",
    "certified_radius_closed_form",
    "certified_radius_of_run",
    "corruption_bound",
    "sparsity_gap_bound",
]

SOFTMAX_LIPSCHITZ = 0.25  # c of one linear layer, softmax and cross-entropy, inputs in [0, 1]: SparseFed, App. A.3.1


@explained
def certified_radius(
    learning_rates: Sequence[Positive],
    *,
    k: PositiveCount,
    size: PositiveCount,
    corruption: NonNegative | Sequence[NonNegative],
    sparsity_gap: NonNegative | Sequence[NonNegative],
    lipschitz: Positive = SOFTMAX_LIPSCHITZ,
    form: Literal["proof", "printed"] = "proof",
) -> float:
    """Return R: no attack of the given strength ends with a model further than R from the attack-free one, in l1.

    Bounded is |theta_T - theta*_T|_1, over all parameters, between the final models of two runs of the protocol
    theta <- theta - lambda(t) A(u_t) that share initial model, sampling, data and all randomness: in one, an attacker
    adds to the *averaged* gradient of every round a vector of l1 norm at most rho; in the other nobody does. In each
    round (Equation 3)::

        r = r (1 + lambda(t) c w) + lambda(t) (rho + 2 gamma),    w = min(d, 2 k)

    It says nothing about predictions, and is far from tight: r grows exponentially with the rounds.

    It holds where its premises hold:

    - the honest averaged gradient is c-coordinatewise Lipschitz: no coordinate changes by more than c |theta -
      theta'|_1. c = 1/4 is proved for softmax regression on inputs in [0, 1], one plain SGD step a client, and no
      honest update clipped. For any other network c is an assumption;
    - A changes at most k coordinates, and |A(u_t) - u_t|_1 <= gamma in both runs. Momentum and error feedback are part
      of A, and what they add is part of gamma.

    Args:
        learning_rates: lambda(t) of each round that changed the model, times the server's own rate if it has one.
        k: coordinates changed a round.
        size: d, the number of parameters.
        corruption: rho, per unit of learning rate; one number, or one a round. See ``corruption_bound``.
        sparsity_gap: gamma, per unit of learning rate; one number, or one a round.
        lipschitz: c.
        form: ``"proof"``: as above. ``"printed"``: Algorithm 3 to the letter, which has rho + gamma in the place of
            rho + 2 gamma and 2 k in the place of min(d, 2 k); the proof does not cover it.

    Returns:
        R >= 0; infinity where it exceeds the range of floats.

    Raises:
        ConfigError: a value out of its range, or sequences of different lengths.

    Example:
        >>> certified_radius([0.5, 0.5], k=2, size=100, corruption=1.0, sparsity_gap=0.25)
        1.875

    Source: Panda et al., SparseFed, AISTATS 2022, Theorem 2, App. A.1 (Equation 3) and A.3.2 (Algorithm 3).
    """
    settings = {"learning_rates": list(learning_rates), "k": k, "size": size, "lipschitz": lipschitz, "form": form}
    settings.update(corruption=corruption, sparsity_gap=sparsity_gap)
    check_parameters(certified_radius, settings, name="certified_radius")
    rounds = len(learning_rates)
    rho, gamma = _per_round("corruption", corruption, rounds), _per_round("sparsity_gap", sparsity_gap, rounds)
    width, gaps = (2 * k, 1) if form == "printed" else (min(size, 2 * k), 2)
    radius = 0.0
    for rate, attack, gap in zip(learning_rates, rho, gamma, strict=True):
        radius = radius * (1 + rate * lipschitz * width) + rate * (attack + gaps * gap)
    return radius


@explained
def certified_radius_closed_form(
    learning_rates: Sequence[Positive],
    *,
    k: PositiveCount,
    size: PositiveCount,
    corruption: NonNegative,
    sparsity_gap: NonNegative,
    lipschitz: Positive = SOFTMAX_LIPSCHITZ,
) -> float:
    """Return Theorem 2 as it is printed: Lambda (1 + w c)^Lambda (rho + 2 gamma), Lambda the sum of the rates.

    Its proof uses 1 + w c lambda <= (1 + w c)^lambda, Bernoulli's inequality, which is true for rates of 1 and more
    and false below. With the usual rates the printed radius is *smaller* than what the theorem's own recursion gives,
    and is no certificate: use ``certified_radius``. This is here to compare with the paper.

    Args:
        learning_rates: as in ``certified_radius``.
        k: as there.
        size: as there.
        corruption: rho; one number.
        sparsity_gap: gamma; one number.
        lipschitz: c.

    Returns:
        The printed radius; infinity where it exceeds the range of floats.

    Raises:
        ConfigError: a value out of its range.

    Example:
        >>> certified_radius_closed_form([0.5, 0.5], k=2, size=100, corruption=1.0, sparsity_gap=0.25)
        3.0

    Source: Panda et al., SparseFed, AISTATS 2022, Theorem 2; Theorem 1 is k = size, sparsity_gap = 0.
    """
    settings = {"learning_rates": list(learning_rates), "k": k, "size": size, "lipschitz": lipschitz}
    settings.update(corruption=corruption, sparsity_gap=sparsity_gap)
    check_parameters(certified_radius_closed_form, settings, name="certified_radius_closed_form")
    total = math.fsum(learning_rates)
    try:
        return float(total * (1 + min(size, 2 * k) * lipschitz) ** total * (corruption + 2 * sparsity_gap))
    except OverflowError:
        return math.inf


@explained
def corruption_bound(fraction: Fraction, *, max_norm: Positive, size: PositiveCount) -> float:
    """Return rho: how much a share p of clipped clients can change the mean update of a round, in l1.

    Each attacker replaces an update of L2 norm at most L by another: it moves by at most 2 L, the mean of all by 2 p L,
    and in l1 by at most sqrt(d) times that. The paper writes rho = p L, which bounds the L2 norm of what attackers
    add, while its Definition 1 and its theorems are about l1.

    Args:
        fraction: p, attackers in a round over the clients in it.
        max_norm: L, the bound on each update.
        size: d.

    Raises:
        ConfigError: a value out of its range.

    Example:
        >>> corruption_bound(0.02, max_norm=5.0, size=10_000)
        20.0

    Source: Panda et al., SparseFed, AISTATS 2022, Definition 1 and Sec. 2.2 ("rho = pL").
    """
    settings = {"fraction": fraction, "max_norm": max_norm, "size": size}
    check_parameters(corruption_bound, settings, name="corruption_bound")
    return 2 * fraction * max_norm * math.sqrt(size)


@explained
def sparsity_gap_bound(max_norm: Positive, *, size: PositiveCount, loss_rate: Fraction) -> float:
    """Return gamma of SparseFed without momentum, if top-k never loses more than a share of the l1 mass.

    Args:
        max_norm: L, the bound on each update.
        size: d.
        loss_rate: omega, below 1: the largest share of the l1 mass of update plus memory that top-k drops, in any
            round.

    Returns:
        2 L sqrt(d) omega / (1 - omega).

    Raises:
        ConfigError: a value out of its range.

    Example:
        >>> sparsity_gap_bound(5.0, size=10_000, loss_rate=0.5)
        1000.0

    Source: Panda et al., SparseFed, AISTATS 2022, Lemma 3.
    """
    settings = {"max_norm": max_norm, "size": size, "loss_rate": loss_rate}
    check_parameters(sparsity_gap_bound, settings, name="sparsity_gap_bound")
    if loss_rate == 1:
        raise ConfigError("sparsity_gap_bound: loss_rate must be less than 1; top-k keeps something of every vector.")
    return 2 * max_norm * math.sqrt(size) * loss_rate / (1 - loss_rate)


@explained
def certified_radius_of_run(
    records: Sequence[Mapping[str, Any]],
    training: Training,
    *,
    size: PositiveCount,
    num_rounds: PositiveCount | None = None,
    twin: Sequence[Mapping[str, Any]] | None = None,
    server_learning_rate: Positive = 1.0,
    lipschitz: Positive = SOFTMAX_LIPSCHITZ,
) -> list[float]:
    """Return the certified radius after each round of a run with SparseFed, from what the run recorded.

    rho comes from the attackers that took part and the bound that was in force, gamma is the gap that was measured.
    See ``certified_radius`` for what is bounded and when; clients must take one plain SGD step a round, so that an
    update is minus the learning rate times a gradient, and count alike (``weighting="uniform"``).

    Args:
        records: the rounds of the attacked run, as in its ``rounds.jsonl``; round 0 is left out, and rounds that kept
            the previous model add nothing.
        training: how clients trained.
        size: d.
        num_rounds: rounds of the run, where the schedule asks for it.
        twin: the rounds of the same run without attackers. Left out, its gaps are taken to be those of the attacked
            run, and the result is an estimate.
        server_learning_rate: SparseFed's lambda.
        lipschitz: c.

    Raises:
        ConfigError: a round has no verdict of SparseFed, or the twin has other rounds.

    Source: Panda et al., SparseFed, AISTATS 2022, Algorithm 3 with Lemma 1's gamma + gamma of the two runs.
    """
    rounds = [record for record in records if record["round"] > 0]
    twins = rounds if twin is None else [record for record in twin if record["round"] > 0]
    if [record["round"] for record in twins] != [record["round"] for record in rounds]:
        raise ConfigError("certified_radius_of_run: the twin must have the same rounds as the attacked run.")
    radius, radii = 0.0, []
    for record, other in zip(rounds, twins, strict=True):
        if record["kept_previous_model"] is None:
            notes = _sparsefed(record)
            rate = training.learning_rate_at(record["round"], num_rounds)
            fraction = len(record["adversaries"]) / len(record["sampled"])
            attack = corruption_bound(fraction, max_norm=notes["max_norm"], size=size)
            gaps = notes["sparsity_gap"] + _sparsefed(other)["sparsity_gap"]
            width = min(size, 2 * notes["k"])
            # rho and gamma are recorded for updates, which hold the clients' rate already
            radius = radius * (1 + server_learning_rate * rate * lipschitz * width)
            radius += server_learning_rate * (attack + gaps)
        radii.append(radius)
    return radii


def _sparsefed(record: Mapping[str, Any]) -> Mapping[str, Any]:
    for verdict in record["defenses"]:
        if "sparsity_gap" in verdict["notes"] and verdict["notes"]["max_norm"] is not None:
            notes: Mapping[str, Any] = verdict["notes"]
            return notes
    raise ConfigError(
        f"round {record['round']} has no verdict of SparseFed, or of FetchSGD with a max_norm; its defenses: "
        f"{', '.join(verdict['name'] for verdict in record['defenses']) or 'none'}."
    )


def _per_round(name: str, value: float | Sequence[float], rounds: int) -> Sequence[float]:
    values = [value] * rounds if isinstance(value, int | float) else value
    if len(values) != rounds:
        raise ConfigError(
            f"certified_radius: {name} needs one number, or one for each of {rounds} rounds; got {len(values)}."
        )
    return values
