from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge
from torch import nn

from flsec._calls import explained
from flsec.parameters import PositiveCount, check_parameters
from flsec.reconstruction import INVERSIONS
from flsec.reconstruction.labels import reveal_labels
from flsec.reconstruction.observation import Observation
from flsec.reconstruction.result import Reconstruction

__all__ = ["invert_observation"]

UnknownLabels = Literal["revealed", "searched"]

# What ``invert_observation`` gives to an inversion; all else is the user's to set.
INVERSION_SUPPLIED = (
    "model",
    "gradients",
    "input_shape",
    "num_classes",
    "seed",
    "batch_size",
    "labels",
    "local_steps",
    "progress",
)


@explained
def invert_observation(
    model: nn.Module,
    observation: Observation,
    *,
    input_shape: Sequence[PositiveCount],
    num_classes: Annotated[int, Ge(2)],
    attack: str = "invert_gradients",
    settings: Mapping[str, Any] | None = None,
    unknown_labels: UnknownLabels = "revealed",
    seed: int = 0,
) -> Reconstruction:
    """Rebuild the examples behind a client's update, with all that the observation assumes about its training.

    Args:
        model: the network's structure; its weights do not matter.
        observation: what the server holds. If it has labels they are taken for known; its steps are unrolled.
        input_shape: of one example.
        num_classes: C.
        attack: a function of this package that takes model and gradients (``INVERSIONS``), by name:
            ``"invert_gradients"``, ``"deep_leakage"``, or ``"package.module:function"`` for one of your own in the
            same form.
        settings: of the attack, such as ``{"max_iterations": 500}``.
        unknown_labels: where the observation has no labels: ``"revealed"`` reads them off the last layer first
            (``reveal_labels``), ``"searched"`` leaves them to the attack.
        seed: of the random starts.

    Returns:
        What the attack returns: as many examples as the observation says are behind the update.

    Raises:
        ConfigError: no such attack, a setting that it does not take or that is out of its range, arrays that do not
            fit the model, or an update that holds nothing.

    Example:
        >>> import numpy as np
        >>> from flsec.models import Softmax
        >>> model = Softmax((2,), 2)
        >>> client = [np.float32([[0.1, 0.2], [-0.1, -0.2]]), np.float32([0.5, -0.5])]  # one step at rate 1
        >>> observation = Observation(sent=[0 * a for a in client], received=client, learning_rate=1.0)
        >>> result = invert_observation(model, observation, input_shape=(2,), num_classes=2, attack="deep_leakage")
        >>> result.inputs.round(decimals=3), result.labels
        (tensor([[0.2000, 0.4000]]), tensor([0]))
    """
    given = {
        "input_shape": tuple(input_shape),
        "num_classes": num_classes,
        "attack": attack,
        "settings": settings,
        "unknown_labels": unknown_labels,
        "seed": seed,
    }
    check_parameters(invert_observation, given, name="invert_observation")
    network = observation.network(model)
    form: dict[str, Any] = {
        "input_shape": tuple(input_shape),
        "num_classes": num_classes,
        "batch_size": observation.examples,
    }
    gradients = observation.gradients(network)
    labels: Any = observation.labels
    if labels is None and unknown_labels == "revealed":
        labels = reveal_labels(network, gradients, **form).labels
    result: Reconstruction = INVERSIONS.build(
        attack,
        dict(settings or {}),
        model=network,
        gradients=gradients,
        labels=labels,
        local_steps=observation.local_steps,
        seed=seed,
        **form,
    )
    return result
