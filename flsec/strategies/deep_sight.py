"""DeepSight as a Flower strategy."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from flsec.aggregation._device import computing_device
from flsec.aggregation._filters import clipping_factors, median_norm
from flsec.aggregation._gram import row_norms, weighted_sum
from flsec.aggregation.deep_sight import (
    deep_sight_accepts,
    deep_sight_ddifs,
    deep_sight_energies,
    deep_sight_suspects,
)
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.randomness import generator
from flsec.strategies._root_model import ModelFactory, RootModel
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["DeepSight"]

_BATCH = 1000  # random inputs at a time


class DeepSight(RobustStrategy):
    """Cluster clients by what their models tell of their data, and drop clusters in which many are suspicious.

    Args:
        strategy: the strategy to protect.
        model_factory: builds the clients' network.
        input_shape: of one example; inputs are numbers.
        output_layer: names of the output layer's weights and biases, as in the network's state dict. None: the last
            array of two dimensions with a bias after it, which must have as many outputs as the network.
        num_seeds: how many times random inputs are drawn; each gives a clustering.
        num_samples: random inputs each time, evenly drawn from [0, 1].
        min_cluster_size: the fewest clients that HDBSCAN takes for a cluster.
        max_suspicious: tau; a cluster with this share of suspicious clients, or more, is dropped.
        seed: seed of the random inputs; a round draws its own.
        options: see ``RobustStrategy``; with ``weighting="examples"`` the clipped updates are averaged by its weights.

    Keeps (m, d) of a round's (n, d) updates and makes one (d,) of them. Against backdoors by clients whose training
    data are more alike than the others': a client is suspicious if few of its output neurons changed much. Clients are
    compared by that, by the changes of the output biases, and by how their models changed the predictions of random
    inputs. Those of accepted clusters are clipped to the median norm of all updates. Honest clients that have one or
    two classes look suspicious where the others have many. It can be told no number of attackers and expects more
    honest clients than others; of fewer than 3 replies all are kept. With a hundred clients of a large network the
    random inputs take the time: lower ``num_samples``.

    The verdict's scores are the share of the output neuron that changed most, in energy; its notes are ``suspicious``,
    how many were, and ``max_norm``. BatchNorm's statistics are the global model's.

    O(num_seeds num_samples n) predictions and O(n d) time a round, O(n d) memory for the rows kept; nothing is kept
    between rounds, nothing on the client.

    Raises:
        ConfigError: the network has no such output layer, a count is not at least 1 (``min_cluster_size``: 2), or
            ``max_suspicious`` is not in (0, 1]. Others: see ``RobustStrategy``.

    Example:
        >>> import torch
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.models import Softmax
        >>> from flsec.testing import play_rounds
        >>> network, root_data = Softmax((1,), 2), (torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]))
        >>> strategy = DeepSight(
        ...     FedAvg(), model_factory=lambda: network, input_shape=(1,), num_samples=100, min_cluster_size=2
        ... )
        >>> honest = [[-1.0, 1.0, -0.1, 0.1], [-1.1, 1.1, -0.1, 0.1], [-0.9, 1.0, -0.1, 0.1], [-1.0, 0.9, -0.1, 0.1]]
        >>> hostile = [[0.0, 0.1, 0.0, 9.0], [0.0, 0.1, 0.0, 9.1]]
        >>> _ = play_rounds(strategy, honest + hostile, model=network)
        >>> strategy.last_report.kept
        (0, 1, 2, 3)

    Source: Rieger, Nguyen, Miettinen and Sadeghi, "DeepSight: Mitigating Backdoor Attacks in Federated Learning Through
        Deep Model Inspection", NDSS 2022.
    """

    fits_inputs: ClassVar = "numbers"
    fits_labels: ClassVar = "class"

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        model_factory: ModelFactory,
        input_shape: Sequence[PositiveCount],
        output_layer: tuple[str, str] | None = None,
        num_seeds: PositiveCount = 3,
        num_samples: PositiveCount = 20_000,
        min_cluster_size: Annotated[int, Ge(2)] = 5,
        max_suspicious: Annotated[float, Gt(0), Le(1)] = 1 / 3,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.input_shape = tuple(input_shape)
        self.num_seeds = num_seeds
        self.num_samples = num_samples
        self.min_cluster_size = min_cluster_size
        self.max_suspicious = max_suspicious
        self.seed = seed
        self._model = RootModel(model_factory)
        self.output_layer = output_layer or self._find_output_layer(model_factory)
        self._shares = torch.empty(0)  # of the rows kept, from one stage to the next

    def _find_output_layer(self, model_factory: ModelFactory) -> tuple[str, str]:
        """Return the names of the last matrix and its bias, if these make the network's outputs."""
        names, shapes = list(self._model.shapes), self._model.shapes
        layers = [pair for pair in pairwise(names) if len(shapes[pair[0]]) == 2 and len(shapes[pair[1]]) == 1]
        matrices = [name for name in names if len(shapes[name]) == 2]
        if not layers or layers[-1][0] != matrices[-1]:
            raise self._no_output_layer("has no matrix with a bias after it")
        outputs = self._try(model_factory)
        if outputs.shape[1:] != shapes[layers[-1][1]]:
            raise self._no_output_layer(f"has outputs {tuple(outputs.shape)}, which are not those of {layers[-1][0]}")
        return layers[-1]

    def _try(self, model_factory: ModelFactory) -> Tensor:
        """Return the outputs for one random input."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            try:
                outputs = model_factory().eval()(torch.rand(1, *self.input_shape))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise self._no_output_layer(f"takes no numbers of shape {self.input_shape}: {error!s:.100}") from None
        if not isinstance(outputs, Tensor):
            raise self._no_output_layer(f"returns {type(outputs).__name__} in place of logits")
        return outputs

    def check_samples(self, x: Tensor) -> None:
        """Raise ``ConfigError`` unless the network has the arrays that were named, as weights with a bias each.

        Args:
            x: (n, ...), some of the clients' samples; not looked at.
        """
        unknown = [name for name in self.output_layer if name not in self._model.shapes]
        if unknown:
            raise self._no_output_layer(f"sends no array {unknown[0]!r}")
        weight, bias = (self._model.shapes[name] for name in self.output_layer)
        if len(weight) < 2 or len(bias) != 1 or bias[0] < 2 or bias[0] not in (weight[0], weight[-1]):
            raise self._no_output_layer(f"has arrays of shapes {weight} and {bias} by these names")

    def _no_output_layer(self, what: str) -> ConfigError:
        return ConfigError(
            f"DeepSight compares clients by the output layer, and the network {what}. Name its weights and biases of 2 "
            "or more outputs, such as output_layer: [fc.weight, fc.bias], or take another defense, such as multi_krum.",
            parameter="output_layer",
        )

    @property
    def accuses_clients(self) -> bool:
        """Never: whole clusters are dropped, honest clients among them."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the clients of clusters that are not accepted."""
        ddifs = self._ddifs(cohort)  # refuses a network of other arrays than the clients'
        weights, biases = self._output_layers(cohort)
        energies = deep_sight_energies(weights, biases)
        accepted = deep_sight_accepts(energies, biases, ddifs, self.min_cluster_size, self.max_suspicious)
        norms = row_norms(cohort.updates)
        max_norm = median_norm(norms)
        suspicious = int(deep_sight_suspects(energies).sum())
        self.report(scores=energies.amax(dim=1), suspicious=suspicious, max_norm=max_norm)
        trust = self.weights(cohort)
        kept = accepted.double() if trust is None or not bool((trust * accepted).any()) else trust * accepted
        shares = clipping_factors(norms, max_norm) * kept / kept.sum().clamp(min=1e-300)
        self._shares = shares[accepted]
        return cohort.keep(accepted)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the mean of the clipped rows."""
        return weighted_sum(cohort.updates, self._shares)

    def _output_layers(self, cohort: Cohort) -> tuple[Tensor, Tensor]:
        """Return the updates of the output layer: (n, p, h) weights and (n, p) biases."""
        self.check_samples(cohort.updates)
        slots = dict(zip(self._model.shapes, cohort.layout.slots, strict=True))
        weight, bias = (slots[name] for name in self.output_layer)
        biases = cohort.updates[:, bias.start : bias.stop]
        weights = cohort.updates[:, weight.start : weight.stop].reshape(len(cohort), *weight.shape)
        if weight.shape[0] != biases.shape[1]:  # as Conv1D of transformers has it: inputs first
            weights = weights.movedim(-1, 1)
        return weights.reshape(len(cohort), weights.shape[1], -1), biases

    def _ddifs(self, cohort: Cohort) -> Tensor:
        """Return (num_seeds, n, outputs)."""
        unchanged = torch.zeros_like(cohort.global_parameters)
        reference = self._predictions(cohort, unchanged)
        ddifs = [
            [deep_sight_ddifs(own, other) for own, other in zip(self._predictions(cohort, row), reference, strict=True)]
            for row in cohort.updates
        ]
        return torch.stack([torch.stack(of_client) for of_client in ddifs], dim=1)

    @torch.no_grad()
    def _predictions(self, cohort: Cohort, update: Tensor) -> list[Tensor]:
        """Return a model's logits of the round's random inputs, (num_samples, outputs) for each seed."""
        model = self._model.after(cohort, update)
        return [torch.cat([_logits(model, x) for x in self._inputs(cohort.round, k)]) for k in range(self.num_seeds)]

    def _inputs(self, round: int, number: int) -> list[Tensor]:
        drawn = generator(self.seed, round, purpose=f"deep_sight {number}")
        sizes = [min(_BATCH, self.num_samples - start) for start in range(0, self.num_samples, _BATCH)]
        return [torch.rand(size, *self.input_shape, generator=drawn) for size in sizes]


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    outputs: Tensor = model(x.to(computing_device()))
    return outputs.cpu()
