"""FedInv as a Flower strategy."""

import math
import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from flsec.aggregation._device import computing_device
from flsec.aggregation.fedinv import fedinv, fedinv_distances, fedinv_scores
from flsec.errors import ConfigError
from flsec.parameters import Count, Positive, PositiveCount
from flsec.randomness import seed_for
from flsec.reconstruction.invert_update import InvertedUpdates, invert_update, start_gradient_norm
from flsec.strategies._root_model import ModelFactory
from flsec.strategies.base import FlowerStrategy, RobustStrategy, Weighting
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold
from flsec.training import Training, set_weights, weight_names

__all__ = ["FedInv"]


class FedInv(RobustStrategy):
    """Turn each update into dummy data that explain it, and drop the clients whose dummies are exceptional.

    Args:
        strategy: the strategy to protect.
        num_byzantine: F, an upper bound on the hostile clients among a round's replies.
        model_factory: builds the clients' network.
        training: how clients train: how many steps an update has, and of which rate.
        input_shape: of one example; its inputs must be real numbers, not tokens.
        num_classes: C.
        target: how large the gradients are that the dummies must reproduce. ``"scaled"``, as printed: the clients' own
            times s^t. ``"common"``: all of a round times one factor, with which their median norm is that of the
            model's gradient at the dummies' start; then as much is asked of the inversion in every round and of
            every model, and there is no s to tune.
        scale: s; in round t the gradient that a client's dummies must reproduce is multiplied by s^t, because updates
            shrink as the model converges. The paper calls it a hyperparameter to be tuned and gives no value. Only for
            ``"scaled"``.
        amplification: a constant factor beside either.
        batch_size: dummies per client; the paper gives 10 in one experiment. None: as many as the clients' batches
            hold, so that few classes are without one.
        num_steps: of the inversion. The paper names 700, and no learning rate. With ours 700 blur the verdict; with 300
            accuracy holds on the paper's CNN, also under BadNets; for logistic regression 50 are better.
        learning_rate: of the inversion, about how far an input moves in a step.
        selection: which scores are good; see ``flsec.aggregation.fedinv``. ``"clusters"`` is the paper's; where honest
            clients differ much it can cut among them and keep the attackers, for which there is ``"lowest"``.
        clients_at_once: how many clients to invert together; all if None. For memory; the result is the same.
        num_rounds: rounds of the run, for learning-rate schedules that depend on it.
        seed: the seed of the run; labels and start of the dummies depend on it and on the round.
        weighting: the paper weights by the number of examples, which the client writes: with ``max_weight_ratio`` that
            number counts up to a bound, with ``"uniform"`` not at all, here and in the number of steps.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, ``num_classes`` is not at least 2, another count is not at least 1,
            ``target`` or ``selection`` is none of its values, ``training`` is no ``Training``, or a first round asks no
            more than 2 F clients; by ``check_samples``: inputs are tokens. Others: see ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. The gradient that stands for client n's update u_n of T steps is -u_n /
    (T learning rate), times s^t and the amplification. The paper prints a plus, but u_n goes against the gradient, and
    leaves the rate out: with its Adam at 0.001 the dummies would then reproduce little more than no gradient at all,
    which is the same for all clients. T follows from the client's number of examples.

    The verdict's scores are the paper's q; good are moderate ones. Clients are dropped in every round, also where all
    are honest: at most n - F are kept, and of a round's replies the larger of two clusters. A client whose dummies left
    the range of floats is dropped and listed in the notes ``not_invertible``; if that is everybody, the previous model
    is kept. Nothing is remembered between rounds. Needs n > 2 F usable replies; attackers in the majority are not found
    but become the majority. Notes: ``inversion_error``, the squared error of the dummies' gradients over
    that of the start's (the median of the clients), and ``inversion_seconds``.

    Cost: num_steps derivatives of n batch_size examples a round, in one batch; ``benchmarks/fedinv_inversion.py``.
    The server sees no more than it would anyway, and does to the updates what an attacker on privacy would do: that the
    dummies tell nothing of the data is for ``flsec.metrics.reconstruction_scores`` to say.

    Example:
        >>> import torch
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.models import Softmax
        >>> from flsec.testing import play_rounds
        >>> from flsec.training import Training
        >>> network = Softmax((1,), 2)
        >>> strategy = FedInv(
        ...     FedAvg(), num_byzantine=1, model_factory=lambda: network, training=Training(learning_rate=0.5, steps=1),
        ...     input_shape=(1,), num_classes=2, num_steps=20,
        ... )
        >>> steps = torch.tensor([[1.0], [0.9], [1.1], [-90.0]])  # of four clients
        >>> _ = play_rounds(strategy, steps * torch.tensor([-1.0, 1.0, 0.0, 0.0]), model=network)
        >>> strategy.last_report.kept
        (0, 1, 2)

    Source: FedInv (Zhao, Sun, Wang and Jiang, AAAI 2022), Algorithm 1.
    """

    fits_inputs: ClassVar = "numbers"
    fits_labels: ClassVar = "class"

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        num_byzantine: Count,
        model_factory: ModelFactory,
        training: Training,
        input_shape: Sequence[PositiveCount],
        num_classes: Annotated[int, Ge(2)],
        target: Literal["scaled", "common"] = "scaled",
        scale: Positive = 1.02,
        amplification: Positive = 1.0,
        batch_size: PositiveCount | None = 10,
        num_steps: PositiveCount = 300,
        learning_rate: Positive = 0.03,
        selection: Literal["clusters", "lowest"] = "clusters",
        clients_at_once: PositiveCount | None = None,
        num_rounds: PositiveCount | None = None,
        seed: int = 0,
        weighting: Weighting = "examples",
        **options: Any,
    ) -> None:
        super().__init__(strategy, weighting=weighting, **options)
        self.num_byzantine = num_byzantine
        self.model_factory = model_factory
        self.training = training
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes
        self.target: Literal["scaled", "common"] = target
        self.scale = scale
        self.amplification = amplification
        self.batch_size = batch_size
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.selection: Literal["clusters", "lowest"] = selection
        self.clients_at_once = clients_at_once
        self.num_rounds = num_rounds
        self.seed = seed

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 F + 1: the honest clients must be the majority."""
        return 2 * num_byzantine + 1

    def check_samples(self, x: Tensor) -> None:
        """Raise ``ConfigError`` unless dummies like these samples can be moved bit by bit, with an effect on the model.

        Args:
            x: (n, ...), n at least 1, some of the clients' samples, as the model takes them.
        """
        advice = "For example, another defense: name: multi_krum"
        if not x.is_floating_point():
            raise ConfigError(f"FedInv moves inputs bit by bit, which takes real numbers; got {x.dtype}. {advice}")
        inputs = x[:1].clone().requires_grad_()
        with torch.random.fork_rng(devices=[]):
            output = self.model_factory().eval()(inputs)
        if not output.requires_grad or torch.autograd.grad(output.sum(), inputs, allow_unused=True)[0] is None:
            raise ConfigError(
                f"FedInv moves inputs along the model's gradient, and the model has none, as for tokens. {advice}"
            )

    def check_scale(self, scale: float) -> None:
        """Raise ``ConfigError``: the dummies start with values of about 1 and move by hundredths.

        Args:
            scale: how large the data's values are.
        """
        raise ConfigError(
            f"FedInv: its dummy data are made for values of about 1, not of about {scale:g}. In data: scale: 1.0"
        )

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the clients of moderate scores."""
        started = time.perf_counter()
        found = self.invert(cohort)
        seconds = time.perf_counter() - started
        distances = fedinv_distances(found.inputs - found.start, found.labels)
        faults = min(self.faults(cohort), (len(cohort) - 1) // 2)  # fewer only where ``unsafe`` allows it
        scores = fedinv_scores(distances, faults)
        lost = scores.isfinite().logical_not()
        kept = fedinv(distances, faults, self.selection)
        unexplained = (found.loss / found.start_loss)[~lost]
        self.report(
            scores=scores,
            threshold=Threshold.of_kept(scores[kept], lowest=self.selection == "clusters", highest=True),
            not_invertible=[i for i, gone in zip(cohort.client_ids, lost.tolist(), strict=True) if gone],
            inversion_error=float(unexplained.median()) if len(unexplained) else None,
            inversion_seconds=seconds,
        )
        return cohort.keep(kept)

    def invert(self, cohort: Cohort) -> InvertedUpdates:
        """Return the dummies of this round's clients, which before_aggregation compares."""
        with torch.random.fork_rng(devices=[]):  # weights are drawn, and then replaced
            model = self.model_factory().to(computing_device())
        set_weights(model, cohort.layout.unflatten(cohort.global_parameters, cohort.global_state))
        gradients = self._equivalent_gradients(cohort, model)
        seed = seed_for(self.seed, cohort.round, purpose="FedInv")
        size = self.batch_size or self._clients_batch(cohort)
        if self.target == "common":
            own = start_gradient_norm(
                model, input_shape=self.input_shape, num_classes=self.num_classes, seed=seed, batch_size=size
            )
            gradients = gradients * _common_factor(gradients, own)
        found = invert_update(
            model,
            gradients,
            input_shape=self.input_shape,
            num_classes=self.num_classes,
            seed=seed,
            batch_size=size,
            learning_rate=self.learning_rate,
            num_steps=self.num_steps,
            clients_at_once=self.clients_at_once,
        )
        return InvertedUpdates(**{name: part.cpu() for name, part in vars(found).items()})

    def _equivalent_gradients(self, cohort: Cohort, model: nn.Module) -> Tensor:
        """Return (n, d), of the parameters that require a gradient."""
        slots = dict(zip(weight_names(model), cohort.layout.slots, strict=True))
        trained = [slots[name] for name, p in model.named_parameters() if p.requires_grad]
        updates = torch.cat([cohort.updates[:, slot.start : slot.stop] for slot in trained], dim=1)
        grown = self.scale**cohort.round if self.target == "scaled" else 1.0
        factors = self.amplification * grown / self._steps(cohort)
        factors = factors / self.training.learning_rate_at(cohort.round, self.num_rounds)
        return -updates * factors[:, None].to(updates)

    def _clients_batch(self, cohort: Cohort) -> int:
        """Return how many examples a client's batch holds; where that is a share, of the median client's data."""
        size = self.training.batch_size
        return size if isinstance(size, int) else max(1, round(size * float(cohort.num_examples.quantile(0.5))))

    def _steps(self, cohort: Cohort) -> Tensor:
        """Return (n,) float64: how many local steps each client took, by the number of examples it is believed."""
        believed = self.weights(cohort)
        if believed is None:
            believed = cohort.num_examples.quantile(0.5).expand(len(cohort))
        steps = [self.training.num_steps(max(1, round(count))) for count in believed.tolist()]
        return torch.tensor(steps, dtype=torch.float64)


def _common_factor(gradients: Tensor, norm: float) -> float:
    """Return what makes ``norm`` the median norm of the finite rows; 1 where that is not possible."""
    norms = gradients.to(torch.float64).norm(dim=1)
    median = float(norms[norms.isfinite()].quantile(0.5)) if norms.isfinite().any() else 0.0
    factor = norm / median if median > 0 else 1.0
    return factor if math.isfinite(factor) and factor > 0 else 1.0
