"""A backdoor that stays where honest updates are, on a client and, for its second half, on the server."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from flsec.attacks.cohort_view import CohortView
from flsec.attacks.minimizing_distance_backdoor import clip_to_range, minimizing_distance
from flsec.client_apps._around import FitResult, HonestFit, NDArrays, checked_result
from flsec.client_apps._data_attribute import data_of
from flsec.client_apps.badnets import BadNets
from flsec.client_apps.base import Knowledge
from flsec.parameters import Count, Fraction, NonNegative, PositiveCount
from flsec.randomness import generator
from flsec.training import Training, set_weights

__all__ = ["MinimizingDistanceBackdoor"]


class MinimizingDistanceBackdoor(BadNets):
    """Plant a trigger with an update that differs from honest ones by less than they differ from each other.

    First an attacker trains like everybody, on clean data. From there it trains on, on data of which a share carries
    the trigger and the attacker's label, with a penalty on the distance to an honest model. Last, each coordinate of
    the update is moved into the range of mean +- z standard deviations of honest updates; that part takes other
    clients' updates and is done by ``Adversary``, in simulations.

    Args:
        model_factory: builds the network that is trained; its weights are overwritten. A simulation supplies it.
        training: how honest clients train, and the attackers too; a simulation supplies it.
        alpha: the attackers minimise alpha * loss + (1 - alpha) * ||model - anchor||^2.
        anchor: the model to stay close to: the attacker's own ``"honest"`` one, or the ``"global"`` one.
        z: half the width of the range in standard deviations.
        knowledge: whose updates the range is of: ``"all"``: the honest clients'; ``"colluders"``: the attackers' own,
            which carry the backdoor already; ``"own"``: nobody's, nothing is clipped. Fewer than two updates: nothing
            is clipped either.
        num_rounds: rounds of the run, where the schedule asks for it; a simulation supplies it.
        device: where the attackers compute; a simulation supplies that of its clients.
        target: see ``BadNets``.
        fraction: see ``BadNets``.
        options: see ``BadNets`` for the trigger, and ``Attack``.

    ``success`` is that of ``BadNets``.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks import CohortView
        >>> from flsec.models import Softmax
        >>> from flsec.training import Training
        >>> attack = MinimizingDistanceBackdoor(
        ...     model_factory=lambda: Softmax((1,), 2), training=Training(learning_rate=0.1), z=1.0
        ... )
        >>> view = CohortView(
        ...     own=torch.tensor([[9.0]]), own_ids=(2,), clients_per_round=3, round=1, global_parameters=torch.zeros(1),
        ...     others=torch.tensor([[1.0], [3.0]]),
        ... )
        >>> attack.poison_cohort(view)  # a standard deviation, 1.41, above the mean of honest updates
        tensor([[3.4142]])

    Source: Baruch, Baruch and Goldberg, "A Little Is Enough", NeurIPS 2019, Sec. 4.2; FedMLSecurity, Table 2. The
    paper's attackers compute one model together, from the mean of their honest ones; here each has its own.
    """

    fits_labels: ClassVar = "class"

    def __init__(
        self,
        *,
        model_factory: Callable[[], nn.Module],
        training: Training,
        alpha: Fraction = 0.5,
        anchor: Literal["honest", "global"] = "honest",
        z: NonNegative = 1.5,
        knowledge: Knowledge = "all",
        num_rounds: PositiveCount | None = None,
        device: torch.device | str = "cpu",
        target: Count = 0,
        fraction: Fraction = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(target=target, fraction=fraction, **options)
        self.model_factory = model_factory
        self.training = training
        self.alpha = alpha
        self.anchor = anchor
        self.z = z
        self.knowledge = knowledge
        self.num_rounds = num_rounds
        self.device = device

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train honestly, then on towards the backdoor."""
        context = self.context_for(client, config)
        global_ = [np.array(array) for array in parameters]
        local, num_examples, metrics = checked_result(honest_fit(parameters, config), "fit")
        with self.data_replaced(client, context):
            data = self.training_data(data_of(client, self.data_attribute, type(self).__name__))
            x, y = data.tensors(np.arange(len(data)))
        model = self.model_factory().to(self.device)
        set_weights(model, local)
        uploaded = minimizing_distance(
            model,
            x.to(self.device),
            y.to(self.device),
            self.training,
            anchor=local if self.anchor == "honest" else global_,
            alpha=self.alpha,
            round=max(1, context.round),
            generator=generator(self.seed, context.round, context.client_id, "minimizing distance"),
            num_rounds=self.num_rounds,
        )
        typed = [array.astype(honest.dtype, copy=False) for array, honest in zip(uploaded, local, strict=True)]
        return self.with_honest_state(typed, global_, local, client=client), num_examples, metrics

    @property
    def poisons_cohort(self) -> bool:
        """Whether updates are moved into the range of others."""
        return self.knowledge != "own"

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return the attackers' updates, each coordinate in the range of honest ones."""
        if self.knowledge == "own" or len(view.honest) < 2:
            return view.own
        clipped = clip_to_range(view.own, view.honest, z=self.z)
        view.notes["clipped_share"] = float((clipped != view.own).double().mean())
        return clipped
