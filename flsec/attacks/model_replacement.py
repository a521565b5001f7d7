"""Model replacement: an update boosted so that averaging does not cancel it."""

from collections.abc import Sequence

from flsec.attacks._upload import Array, upload
from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount, check_parameters

__all__ = ["model_replacement", "replacement_boost"]


def model_replacement(global_params: Sequence[Array], local_params: Sequence[Array], *, boost: Positive) -> list[Array]:
    """Return w_g + boost * (w_l - w_g).

    With a plain mean of n updates and boost = n, and the others' updates small, the new global model is w_l.

    Args:
        global_params: w_g, the model that the client got from the server. Not modified.
        local_params: w_l, the backdoored model, same shapes. Not modified.
        boost: n / eta for a full replacement, with n participants and the server learning rate eta; 4 in DiverseFL.

    Returns:
        New arrays with the shapes and dtypes of ``local_params``; those that are not floating are copied from there.

    Raises:
        ConfigError: the shapes differ, or ``boost`` is not positive.

    Example:
        >>> import numpy as np
        >>> model_replacement([np.array([1.0, 2.0])], [np.array([1.5, 1.0])], boost=10.0)
        [array([ 6., -8.])]

    Source: Bagdasaryan et al., AISTATS 2020, Eq. 3; DiverseFL, Sec. IV-B; FedInv, "Backdoor FL".
    """
    check_parameters(model_replacement, {"boost": boost}, name="model_replacement")
    return upload(global_params, local_params, lambda w_g, w_l: w_g + boost * (w_l - w_g))


def replacement_boost(
    boost: Positive | None, clients_per_round: PositiveCount | None, server_learning_rate: Positive, *, name: str
) -> float:
    """Return the boost that an attacker was told, or the one that replaces the global model: n / eta.

    Args:
        boost: what the attacker was told; None: to be computed.
        clients_per_round: n, how many updates the server averages in a round.
        server_learning_rate: eta, which the mean of the updates is multiplied by.
        name: who asks and under what name the boost goes there, such as ``"ModelReplacement needs scale"``.

    Raises:
        ConfigError: neither boost nor clients_per_round.

    Example:
        >>> replacement_boost(None, 10, 0.5, name="ModelReplacement needs scale")
        20.0

    Source: Bagdasaryan et al., AISTATS 2020, Eq. 3; Bhagoji et al., ICML 2019, Sec. 3.2 (explicit boosting).
    """
    if boost is not None:
        return boost
    if clients_per_round is None:
        raise ConfigError(
            f"{name}, or clients_per_round to compute it from; got neither. For example: 10.",
            parameter="clients_per_round",
        )
    return clients_per_round / server_learning_rate
