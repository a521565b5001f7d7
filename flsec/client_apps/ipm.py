"""Inner product manipulation, by colluding clients."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flsec.attacks._collusion import as_upload, honest_rows, moments
from flsec.attacks.cohort_view import CohortView
from flsec.attacks.ipm import ipm
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.client_apps._view_model import coordinates_named
from flsec.errors import ConfigError
from flsec.parameters import Positive

__all__ = ["IPM"]


class IPM(CohortAttack):
    """All attackers upload minus epsilon times the mean of the honest updates.

    Args:
        epsilon: the factor. The paper tries 0.1, 0.5 and more up to 100; less than 1 hides, more than (n - f) / f turns
            an undefended model back.
        only: attack weights alone whose name has one of these parts in it, such as ``["lora_"]`` for the adapters of a
            model that exchanges more than these; elsewhere the attackers upload the mean. Null: all weights.
        model_factory: builds the clients' model, for the names; a simulation supplies it.
        options: see ``Attack``, and ``knowledge``: ``"all"``: the mean of all others' updates, as in the paper;
            ``"colluders"``: of their own honest ones. Nothing is known about the defense.

    Raises:
        ConfigError: a parameter out of its range, ``only`` without a model or with none of them in it; in a round,
            see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks.cohort_view import CohortView
        >>> view = CohortView(own=torch.tensor([[1.0], [3.0]]), own_ids=(4, 5), clients_per_round=6, round=1,
        ...     global_parameters=torch.zeros(1), others=torch.tensor([[2.0], [4.0]]))
        >>> IPM(epsilon=0.5).poison_cohort(view)
        tensor([[-1.5000],
                [-1.5000]])

    Source: Xie et al., "Fall of Empires: Breaking Byzantine-Tolerant SGD by Inner Product Manipulation", UAI 2020.
    """

    def __init__(
        self,
        *,
        epsilon: Positive,
        only: Sequence[str] | None = None,
        model_factory: Callable[[], nn.Module] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if only is not None and model_factory is None:
            raise ConfigError(
                "IPM needs model_factory to know which weights only names; got None. A simulation gives it.",
                parameter="only",
            )
        self.epsilon = epsilon
        self.only = only
        self.model_factory = model_factory

    def check_model(self, model: nn.Module) -> None:
        """Raise ``ConfigError`` if no weight of the network has such a name.

        Args:
            model: that of the clients.
        """
        if self.only is not None:
            coordinates_named(model, self.only, "IPM")

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of -epsilon mean, or of the mean where that is not attacked."""
        honest = honest_rows(view)
        upload = ipm(honest, epsilon=self.epsilon)
        if self.only is not None:
            assert self.model_factory is not None
            attacked = coordinates_named(self.model_factory(), self.only, "IPM").to(upload.device)
            upload = torch.where(attacked, upload, as_upload(moments(honest)[0], honest))
        return upload.repeat(len(view.own), 1)
