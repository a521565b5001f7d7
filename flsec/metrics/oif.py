from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.parameters import Count, PositiveCount, check_parameters

__all__ = ["outsized_impact_factor"]


@explained
def outsized_impact_factor(
    num_poisoned: Count, *, num_attackers: PositiveCount, num_clients: PositiveCount, num_samples: PositiveCount
) -> float:
    """Return the OIF: how many samples the attackers had misclassified, over how many their share entitles them to.

    1 is the paper's standard for a successful attack: the attackers poison the same share of the data as they hold of
    the clients.

    Args:
        num_poisoned: samples that the model classifies as the attackers want: attack accuracy times the size of the
            auxiliary set.
        num_attackers: compromised clients in the whole population; the influence is I = num_attackers / num_clients.
        num_clients: all clients, whether or not they ever took part.
        num_samples: n, samples that all clients hold together.

    Returns:
        num_poisoned / (I n).

    Raises:
        ConfigError: more attackers than clients, or a number out of its range.

    Example:
        >>> outsized_impact_factor(500, num_attackers=100, num_clients=10_000, num_samples=50_000)
        1.0

    Source: Panda et al., SparseFed, AISTATS 2022, App. B.1.6.
    """
    check_parameters(outsized_impact_factor, locals(), name="outsized_impact_factor")
    if num_attackers > num_clients:
        raise ConfigError(
            f"outsized_impact_factor: num_attackers must be at most num_clients={num_clients}; got {num_attackers}."
        )
    return num_poisoned * num_clients / (num_attackers * num_samples)
