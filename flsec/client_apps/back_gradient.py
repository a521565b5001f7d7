"""Back-gradient poisoning on a client."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flsec.attacks._mixing import num_added, repeated
from flsec.attacks.back_gradient import optimised_poison
from flsec.attacks.projected_gradient import wrong_labels
from flsec.client_apps._around import FitResult, HonestFit, NDArrays
from flsec.client_apps._client_data import DataChange
from flsec.client_apps.base import Attack, AttackContext
from flsec.errors import ConfigError
from flsec.parameters import OpenFraction, Positive, PositiveCount
from flsec.randomness import generator
from flsec.training import Training, set_weights

__all__ = ["BackGradient"]


class BackGradient(Attack):
    """Add training samples that are optimised to raise the loss on clean data, through the training itself.

    In each round, an attacker copies some of its samples, gives them wrong labels, and moves their inputs along the
    gradient of the loss on other samples of its own after T steps of training from the global model. Then it trains
    on its data and these.

    Args:
        model_factory: builds the network; its weights are overwritten with the global ones. A simulation supplies it.
        training: how honest clients train, for their learning rate; a simulation supplies it.
        fraction: share of poison samples in what an attacker trains on.
        num_samples: how many of its own samples the attacker optimises on, half of them in the unrolled training, half
            as clean data; all where there are fewer.
        steps: T, how many steps of training are unrolled.
        iterations: of the gradient ascent.
        step_size: by how much an iteration moves the inputs, as a share of their range.
        learning_rate: of the unrolled training; null: the honest clients' rate in that round.
        num_rounds: rounds of the run, where the schedule asks for it; a simulation supplies it.
        device: where the attackers compute; a simulation supplies that of its clients.
        options: see ``Attack``.

    Inputs stay within the range of the samples that were drawn. They must be floating: tokens cannot be moved a little.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.client_apps import AttackContext
        >>> from flsec.models import Softmax
        >>> from flsec.training import Training
        >>> attack = BackGradient(
        ...     model_factory=lambda: Softmax((1,), 2), training=Training(learning_rate=0.1), fraction=0.5
        ... )
        >>> data = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
        >>> attack.poisoned_dataset(data, AttackContext(round=1, client_id=0))  # what the search for inputs starts from
        (tensor([[ 1.],
                [-1.],
                [-1.],
                [-1.]]), tensor([1, 0, 1, 1]))

    Source: Munoz-Gonzalez et al., "Towards Poisoning of Deep Learning Algorithms with Back-gradient Optimization",
    AISec 2017, Algorithms 1 and 2; FedInv, "Evaluated Poisoning Attacks".
    """

    fits_inputs: ClassVar = "numbers"
    fits_labels: ClassVar = "class"

    def __init__(
        self,
        *,
        model_factory: Callable[[], nn.Module],
        training: Training,
        fraction: OpenFraction = 0.2,
        num_samples: PositiveCount = 100,
        steps: PositiveCount = 5,
        iterations: PositiveCount = 10,
        step_size: Positive = 0.1,
        learning_rate: Positive | None = None,
        num_rounds: PositiveCount | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.model_factory = model_factory
        self.training = training
        self.fraction = fraction
        self.num_samples = num_samples
        self.steps = steps
        self.iterations = iterations
        self.step_size = step_size
        self.learning_rate = learning_rate
        self.num_rounds = num_rounds
        self.device = device

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train on the client's data and the poison."""
        context = self.context_for(client, config)
        model = self.model_factory().to(self.device)
        set_weights(model, parameters)

        change = DataChange(type(self).__name__, lambda dataset: self._poisoned(dataset, context, model))
        with change.at_work(), change.in_place_of(client, self.data_attribute):
            return honest_fit(parameters, config)

    def poisoned_dataset(self, dataset: Any, context: AttackContext) -> Any:
        """Return the data with the samples added that the search starts from."""
        return self._poisoned(dataset, context, None)

    def _poisoned(self, dataset: Any, context: AttackContext, model: nn.Module | None) -> Any:
        data = self.training_data(dataset)
        size = len(data)
        order = context.generator("back gradient").permutation(size)[: self.num_samples]
        x, y = data.tensors(order)
        if not x.is_floating_point():
            raise ConfigError(
                f"{type(self).__name__} moves inputs by small amounts, which takes floating ones; got {x.dtype}. Use "
                "an attack on labels, such as label_flipping."
            )
        random = generator(self.seed, context.round, context.client_id, "back gradient")
        half = (len(y) + 1) // 2
        clean, held_out = (x[:half], y[:half]), (x[half:], y[half:]) if len(y) > 1 else (x, y)
        copied = repeated(half, num_added(half, self.fraction), random)
        poison_x, classes = x[copied], int(y.max()) + 1
        if model is not None:
            with torch.no_grad():
                classes = model.eval()(x[:1].to(self.device)).shape[1]
        poison_y = wrong_labels(y[copied], max(2, classes), random)
        if model is not None:
            poison_x = self._optimised(model, (poison_x, poison_y), clean, held_out, context)
        rows = repeated(len(poison_y), num_added(size, self.fraction), random)
        return data.extended(poison_x[rows], poison_y[rows])

    def _optimised(
        self,
        model: nn.Module,
        poison: tuple[Tensor, Tensor],
        clean: tuple[Tensor, Tensor],
        held_out: tuple[Tensor, Tensor],
        context: AttackContext,
    ) -> Tensor:
        low, high = float(clean[0].min()), float(clean[0].max())
        if not low < high:
            return poison[0]  # constant inputs leave no room
        moved = [(x.to(self.device), y.to(self.device)) for x, y in (poison, clean, held_out)]
        rate = self.learning_rate or self.training.learning_rate_at(max(1, context.round), self.num_rounds)
        found, _ = optimised_poison(
            model,
            *moved,
            learning_rate=rate,
            steps=self.steps,
            iterations=self.iterations,
            step_size=self.step_size,
            bounds=(low, high),
        )
        return found.cpu()
