"""The attack that knows SparseFed."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flsec.aggregation.sparsefed import Coordinates, num_coordinates
from flsec.aggregation.top_k import top_k
from flsec.attacks.cohort_view import CohortView
from flsec.client_apps._around import NDArrays
from flsec.client_apps._view_model import arrays_of_round
from flsec.client_apps.base import AttackContext
from flsec.client_apps.projected_gradient import ProjectedGradient
from flsec.errors import ConfigError
from flsec.state_arrays import state_of_module

__all__ = ["AdaptiveTopK"]


class AdaptiveTopK(ProjectedGradient):
    """Colluding projected gradient descent that changes only coordinates which SparseFed is going to let through.

    Args:
        k: coordinates to change: a number, or a share of all weights. The defense's k, or more.
        coordinates: maps the round to the (m,) indices that the server will let through, for attackers who know them
            from elsewhere. The places count the model's weights, flat and joined, as the server's vectors do: all
            floating arrays but BatchNorm's statistics.
        knowledge: ``"own"``: each attacker acts alone, knows nobody's update, and guesses the coordinates: the k
            largest entries of the gradient of the honest loss, at the global model, on the auxiliary samples with their
            true labels. ``"all"``: as in the paper, the attackers know everybody's updates, and besides what the
            deployed defense would make of them. They train honestly; once all updates are in, they try the defense out
            on the honest round, and change no more than the k largest coordinates of what it would do to the model.
            That half is done by the strategy wrapper ``Adversary``, in simulations; without it the attackers are
            honest. Works against any defense, with k as large as the model where it lets everything through.
        options: see ``ProjectedGradient``.

    In a round in which the defense would not change the model, attackers who know all fall back on the guess.

    In the paper this does no better than the attack without that knowledge (Table 15): where the honest clients move
    the model, the attackers find little to gain.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flwr.client import NumPyClient
        >>> from flsec.models import Softmax
        >>> from flsec.training import get_weights
        >>> x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
        >>> attack = AdaptiveTopK(k=1, auxiliary_data=(x, y), model_factory=lambda: Softmax((1,), 2), learning_rate=0.1)
        >>> @attack
        ... class Client(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return parameters, 10, {}
        >>> upload, _, _ = Client().fit(get_weights(Softmax((1,), 2)), {})
        >>> sum(int((array != 0).sum()) for array in upload)  # of 4 parameters
        1

    Source: Panda et al., SparseFed, AISTATS 2022, App. B.6.5, Algorithm 12; the guess is ours.
    """

    def __init__(
        self,
        *,
        k: Coordinates,
        coordinates: Callable[[int], Tensor] | None = None,
        knowledge: Literal["own", "all"] = "own",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.k = k
        self.coordinates = coordinates
        self.knowledge = knowledge

    @property
    def poisons_update(self) -> bool:
        """Whether each attacker acts alone."""
        return self.knowledge == "own"

    @property
    def poisons_cohort(self) -> bool:
        """Whether the attackers wait for everybody's updates."""
        return self.knowledge == "all"

    def coordinates_of(self, model: nn.Module, context: AttackContext) -> Tensor:
        """Return the places that are let through, or the guess."""
        if self.coordinates is not None:
            return self.coordinates(context.round)
        gradient = self._honest_gradient(model)
        return top_k(gradient, num_coordinates(self.k, len(gradient))).nonzero().squeeze(1)

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of the update that Algorithm 12 finds on the coordinates that the defense lets through."""
        if view.rehearse is None:
            raise ConfigError(
                "AdaptiveTopK with knowledge='all' needs view.rehearse, to try the defense out; got None. "
                "The Adversary wrapper gives it."
            )
        change = view.rehearse(view.own).aggregate
        places = top_k(change, num_coordinates(self.k, len(change))).nonzero().squeeze(1)
        known = self
        if len(places) and self.coordinates is None:
            known = copy.copy(self)
            known.coordinates = lambda round: places
        view.notes["num_coordinates"] = len(places)
        model = self.model_factory()
        given = arrays_of_round(model, view, type(self).__name__)
        uploaded = known.poison_update(given, given, AttackContext(view.round, view.own_ids[0], seed=view.seed))
        update = _joined(uploaded, state_of_module(model)) - view.global_parameters.double().cpu()
        return update.to(view.own).repeat(len(view.own), 1)

    def _honest_gradient(self, model: nn.Module) -> Tensor:
        """Return (d,) float64 over all weights; zero for parameters that are not trained, and for constants."""
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        model.eval()
        with torch.enable_grad():
            loss = cross_entropy(model(self.inputs.to(self.device)), self.true_labels.to(self.device))
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        model.train()
        known = dict(zip(parameters, gradients, strict=True))
        parts = []
        exchanged = getattr(model, "exchanged_state", model.state_dict)()
        values = {name: value for name, value in exchanged.items() if isinstance(value, Tensor)}
        state = state_of_module(model)
        for place, (name, value) in enumerate(values.items()):
            if place not in state:
                gradient = known.get(name)
                parts.append((torch.zeros_like(value) if gradient is None else gradient).reshape(-1).double())
        return torch.cat(parts)


def _joined(arrays: NDArrays, state: frozenset[int]) -> Tensor:
    """Return the weights among the arrays as one (d,) float64 vector."""
    weights = [array.ravel() for place, array in enumerate(arrays) if place not in state]
    return torch.from_numpy(np.concatenate(weights)).double()
