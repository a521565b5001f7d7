"""Soteria on a client: the update of a fully connected layer without what gives the data away."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flsec.aggregation.soteria import LAYER, PERCENTILE, Percentile, representation_and_sensitivity, soteria_pruned
from flsec.client_apps._around import FitResult, HonestFit, NDArrays, checked_result
from flsec.client_apps._half_tools import round_generator
from flsec.client_apps.client_half import ClientHalf
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.training import set_weights, weight_names

__all__ = ["SoteriaClient", "soteria_client"]


class SoteriaClient(ClientHalf):
    """Upload no change of the defended layer's weights at the features that reveal most of the input.

    The features are those that enter the layer. Which ones are pruned is found at the global model, on some of the
    client's examples; see ``flsec.aggregation.soteria_pruned``. In their columns the uploaded weights are those that
    the server sent; biases and other layers are uploaded as trained.

    The client must have an attribute ``model``, a torch network whose state dict has the order of the arrays, as
    ``TorchClient`` has. Costs one backward pass on those examples for each feature. The choice of examples depends on
    seed, round and client alone; the client's partition id and the round must be known.

    Args:
        percentile: share of the features that are pruned, in percent.
        layer: name of a ``torch.nn.Linear`` in the model; None: its last one. What the ``Soteria`` wrapper sends with
            each round takes the place of both.
        num_examples: how many of the client's examples, at most, are looked at.
        seed: the seed of the run.
        options: see ``ClientHalf``.

    Raises:
        ConfigError: a parameter is out of its range; in a round, the client has no ``model`` with such a layer or no
            training data, or its partition id or the round is not known.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps import TorchClient
        >>> from flsec.data import ArrayDataset
        >>> from flsec.models import Softmax
        >>> from flsec.training import Training, get_weights
        >>> data = ArrayDataset(np.array([[1.0, 0.5], [-1.0, -0.5]]), [1, 0])
        >>> client = TorchClient(Softmax((2,), 2), data, Training(learning_rate=0.5, steps=1), client_id=0)
        >>> client = SoteriaClient(percentile=50.0)(client)
        >>> upload, _, _ = client.fit(get_weights(Softmax((2,), 2)), {"server-round": 1})
        >>> (upload[0] != 0).any(axis=0)  # the update at one of two features is left out
        array([False,  True])

    Source: Sun et al., Soteria, CVPR 2021, Algorithm 1. The paper has one batch and one gradient a round; here local
    training takes its steps, and its whole update is pruned once.
    """

    def __init__(
        self,
        *,
        percentile: Percentile = 60.0,
        layer: str | None = None,
        num_examples: PositiveCount = 32,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.percentile = percentile
        self.layer = layer
        self.num_examples = num_examples
        self.seed = seed

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train as ever, then take back what is pruned."""
        model = getattr(client, "model", None)
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"SoteriaClient differentiates the client's network, and {type(client).__name__} has no attribute "
                "'model' that is a torch.nn.Module. Use flsec.client_apps.TorchClient, or set it."
            )
        name, layer = _defended_layer(model, config.get(LAYER, self.layer))
        sent = [np.array(array) for array in parameters]  # training may write into what it was given
        set_weights(model, sent)
        random = round_generator(client, config, self.seed, "soteria")
        r, sensitivity = representation_and_sensitivity(model, layer, self._inputs(client, model, random))
        pruned = soteria_pruned(r, sensitivity, float(config.get(PERCENTILE, self.percentile))).cpu().numpy()
        local, count, metrics = checked_result(honest_fit(parameters, config), "fit")
        place = weight_names(model).index(f"{name}.weight" if name else "weight")
        uploaded = list(local)
        uploaded[place] = np.where(pruned, sent[place], local[place]).astype(np.asarray(local[place]).dtype)
        return uploaded, count, metrics

    def _inputs(self, client: Any, model: nn.Module, random: torch.Generator) -> Tensor:
        data = self.training_data(client)
        if not len(data):
            raise ConfigError(f"SoteriaClient needs the client's training data in its {self.data_attribute!r}.")
        drawn = torch.randperm(len(data), generator=random)[: self.num_examples]
        return data.tensors(drawn.numpy())[0].to(next(model.parameters()).device)


soteria_client = SoteriaClient  # reads better above a class


def _defended_layer(model: nn.Module, name: str | None) -> tuple[str, nn.Linear]:
    """Return the named fully connected layer; the last one for None."""
    layers = {found: module for found, module in model.named_modules() if isinstance(module, nn.Linear)}
    if name is None and layers:
        name = list(layers)[-1]
    if name is None or name not in layers:
        raise ConfigError(
            f"Soteria: layer must be a torch.nn.Linear of the model; got {name!r}. It has: "
            f"{', '.join(repr(found) for found in layers) or 'none'}."
        )
    return name, layers[name]
