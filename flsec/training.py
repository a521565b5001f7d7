"""Local training in plain torch: what an honest client does, and what a server does with data of its own."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from flsec._tensors import array_of, tensor_of
from flsec.errors import ConfigError
from flsec.parameters import NonNegative, OpenFraction, Positive, PositiveCount, check_parameters
from flsec.tasks.base import NOT_COUNTED, Task
from flsec.tasks.classification import CLASSIFICATION

__all__ = [
    "Evaluation",
    "StepHook",
    "TrainResult",
    "Training",
    "evaluate",
    "get_weights",
    "logits_of",
    "pick_device",
    "set_weights",
    "train",
    "weight_names",
]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a client trains in one round.

    Args:
        optimizer: ``"sgd"``, or ``"adam"`` with its usual settings (0.9, 0.999, 1e-8). Neither keeps anything from
            one round to the next.
        learning_rate: the rate that the schedule starts from; for ``"triangular"``, the peak.
        momentum: of SGD.
        weight_decay: L2 penalty; adds weight_decay * parameters to the gradient.
        epochs: passes over the local data; 1 if neither this nor ``steps`` is given.
        steps: batches, instead of ``epochs``; the data is reshuffled whenever it is used up.
        batch_size: examples a batch if an int, a share of the local data if a float (``1`` is one example, ``1.0``
            all of them). An epoch's last batch holds what is left.
        schedule: how the rate follows the rounds r = 1, ..., R:
            ``"constant"``; ``"inverse_sqrt"``: learning_rate / sqrt(r);
            ``"step"``: multiplied by ``decay`` from each of the ``milestones`` on;
            ``"triangular"``: linearly up to learning_rate at round ``peak_at`` * R, then linearly down. It would be
            0 in the rounds 0 and R + 1, so that no round is wasted.
        milestones: rounds of ``"step"``, increasing.
        decay: factor of ``"step"``.
        peak_at: share of the rounds before the peak of ``"triangular"``.
        warmup_rounds: in that many first rounds the rate rises linearly from ``warmup_learning_rate``, in round 1, and
            reaches learning_rate in the round after them; for ``"constant"`` and ``"step"``.
        warmup_learning_rate: see ``warmup_rounds``.

    Raises:
        ConfigError: a value out of its range, or settings that exclude each other.

    Example:
        >>> diversefl_mnist = Training(
        ...     learning_rate=0.06, steps=1, batch_size=0.1, schedule="step", milestones=[500, 950]
        ... )
        >>> diversefl_mnist.learning_rate_at(499), diversefl_mnist.learning_rate_at(500)
        (0.06, 0.03)

    Source: DiverseFL, Sec. IV (1/sqrt(r), step decay, warm-up, batches of 10 %); SparseFed, App. B.3.1 (triangular,
    peak after a fifth of the training); FedInv, "Parameter Settings" (Adam).
    """

    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    weight_decay: NonNegative = 0.0
    epochs: PositiveCount | None = None
    steps: PositiveCount | None = None
    batch_size: PositiveCount | Annotated[float, Gt(0), Le(1)] = 32
    schedule: Literal["constant", "inverse_sqrt", "step", "triangular"] = "constant"
    milestones: Sequence[PositiveCount] = ()
    decay: OpenFraction = 0.5
    peak_at: OpenFraction = 0.2
    warmup_rounds: Annotated[int, Ge(0)] = 0
    warmup_learning_rate: Positive | None = None

    def __post_init__(self) -> None:
        settings = vars(self)
        check_parameters(Training, settings, name="training")
        for name, value in settings.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"training: {name} must be finite; got {value}.", parameter=name)
        if self.epochs is not None and self.steps is not None:
            raise ConfigError(
                f"training: give epochs or steps, not both; got epochs={self.epochs}, steps={self.steps}. "
                "Set one of them to null.",
                parameter="epochs",
            )
        if self.optimizer == "adam" and self.momentum:
            raise ConfigError(
                f"training: momentum is a setting of sgd, adam has its own; got {self.momentum}. Leave it out.",
                parameter="momentum",
            )
        self._check_schedule()
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)
        object.__setattr__(self, "milestones", tuple(self.milestones))

    def _check_schedule(self) -> None:
        if (self.schedule == "step") != bool(self.milestones):
            raise ConfigError(
                "training: schedule 'step' and milestones (such as [500, 950]) go together; "
                f"got schedule {self.schedule!r}, milestones {list(self.milestones)}.",
                parameter="milestones",
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ConfigError(
                f"training: milestones must increase; got {list(self.milestones)}.", parameter="milestones"
            )
        if bool(self.warmup_rounds) != (self.warmup_learning_rate is not None):
            raise ConfigError(
                "training: warmup_rounds and warmup_learning_rate (such as 0.05) go together; "
                f"got {self.warmup_rounds} and {self.warmup_learning_rate}.",
                parameter="warmup_rounds",
            )
        if self.warmup_rounds and self.schedule not in ("constant", "step"):
            raise ConfigError(
                "training: warmup_rounds goes with the schedules 'constant' and 'step'; "
                f"got {self.schedule!r}. Leave it out.",
                parameter="warmup_rounds",
            )

    def learning_rate_at(self, round: int, num_rounds: int | None = None) -> float:
        """Return the learning rate of one round.

        Args:
            round: 1-based.
            num_rounds: R, the length of the run; only ``"triangular"`` asks for it.

        Raises:
            ConfigError: round < 1, or ``"triangular"`` without num_rounds or beyond it.
        """
        if round < 1:
            raise ConfigError(f"training: rounds count from 1; got round {round}.", parameter="round")
        if self.schedule == "triangular":
            return self.learning_rate * self._triangle(round, num_rounds)
        if self.schedule == "inverse_sqrt":
            return self.learning_rate / math.sqrt(round)
        if self.warmup_learning_rate is not None and round <= self.warmup_rounds:
            rise = self.learning_rate - self.warmup_learning_rate
            return self.warmup_learning_rate + rise * (round - 1) / self.warmup_rounds
        return self.learning_rate * self.decay ** sum(round >= milestone for milestone in self.milestones)

    def _triangle(self, round: int, num_rounds: int | None) -> float:
        if num_rounds is None or round > num_rounds:
            raise ConfigError(
                "training: schedule 'triangular' needs num_rounds, at least the current round; "
                f"got round {round}, num_rounds {num_rounds}.",
                parameter="num_rounds",
            )
        peak = max(1, math.floor(self.peak_at * num_rounds + 0.5))
        return round / peak if round <= peak else (num_rounds + 1 - round) / (num_rounds + 1 - peak)

    def batch_size_for(self, num_examples: int) -> int:
        """Return the number of examples in a full batch of a client that has ``num_examples``."""
        if isinstance(self.batch_size, int):
            return min(self.batch_size, num_examples)
        return max(1, math.floor(self.batch_size * num_examples + 0.5))

    def num_steps(self, num_examples: int) -> int:
        """Return how many batches a client that has ``num_examples`` trains on in one round."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 1) * math.ceil(num_examples / self.batch_size_for(num_examples))


class StepHook:
    """What is done around each step of ``train``; a subclass overrides one of the two methods, or both.

    Both are called without autograd. A gradient is None where the loss does not depend on the parameter.

    Example:
        >>> from flsec.models import Softmax
        >>> class Frozen(StepHook):
        ...     def before_step(self, model, gradients):
        ...         return [None for _ in gradients]
        >>> model, x, y = Softmax((1,), 2), torch.tensor([[1.0]]), torch.tensor([1])
        >>> _ = train(model, x, y, Training(learning_rate=1.0), round=1, generator=torch.Generator(), hooks=[Frozen()])
        >>> float(model.output.weight.detach().abs().max())
        0.0
    """

    def before_step(self, model: nn.Module, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """Return the gradients that the optimizer is to use; by default those of the loss.

        Args:
            model: before the step; not to be changed.
            gradients: one for each parameter that requires a gradient, in the order of ``model.parameters()``, with
                the proximal term. Not to be changed in place.
        """
        return gradients

    def after_step(self, model: nn.Module, gradients: Sequence[Tensor | None], learning_rate: float) -> None:
        """Change the parameters in place after the optimizer's step; by default leave them.

        Args:
            model: after the step.
            gradients: those that the optimizer used.
            learning_rate: of this round.
        """


class TrainResult(NamedTuple):
    """What one round of local training did.

    Example:
        >>> from flsec.models import Softmax
        >>> x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
        >>> training = Training(learning_rate=0.1, epochs=3)
        >>> result = train(Softmax((1,), 2), x, y, training, round=1, generator=torch.Generator())
        >>> result.num_examples, result.steps
        (2, 3)
    """

    loss: float  # mean over the examples trained on, each batch with the weights it met
    num_examples: int  # of the data set
    steps: int  # batches


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    training: Training,
    *,
    round: int,
    generator: torch.Generator,
    num_rounds: int | None = None,
    task: Task = CLASSIFICATION,
    proximal_mu: NonNegative = 0.0,
    hooks: Sequence[StepHook] = (),
    augment: Callable[[Tensor], Tensor] | None = None,
) -> TrainResult:
    """Train ``model`` in place on (x, y) for one round.

    The result depends on the arguments alone: batches, dropout and every other draw come from ``generator``, and
    torch's global random state is the same before and after. Bit-identical in any process of the same machine with
    the same number of torch threads.

    Args:
        model: trained on the device it is on; keeps its train or eval mode. Only parameters that require a
            gradient change, and buffers.
        x: (n, ...) inputs.
        y: (n, ...) labels, as the task has them.
        training: the settings.
        round: 1-based; sets the learning rate.
        generator: source of all randomness; advanced.
        num_rounds: length of the run, where the schedule asks for it.
        task: gives the loss of a batch.
        proximal_mu: mu of FedProx, which adds mu / 2 * |w - w_start|^2 to the objective and so mu (w - w_start) to the
            gradient; w_start are the parameters that the round starts from.
        hooks: what is done around each step, the first one first.
        augment: changes the inputs of a batch, (b, ...) to (b, ...), before the model sees them.

    Returns:
        Mean loss (without the proximal term), number of examples, number of steps.

    Raises:
        ConfigError: no data, x and y of different lengths, a round that the schedule does not cover, a proximal_mu
            that is negative or not finite, or a batch of one example for a BatchNorm that needs more.

    Example:
        >>> x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])
        >>> model, settings = nn.Linear(1, 2), Training(learning_rate=0.5, epochs=20)
        >>> _ = train(model, x, y, settings, round=1, generator=torch.Generator().manual_seed(0))
        >>> evaluate(model, x, y).accuracy
        1.0

    Source: the proximal term: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, Sec. 3.2.
    """
    num_examples = _check_data(x, y)
    if not 0 <= proximal_mu < math.inf:
        raise ConfigError(f"proximal_mu must be finite and at least 0; got {proximal_mu}.", parameter="proximal_mu")
    device = _device_of(model)
    x, y = x.to(device), y.to(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters] if proximal_mu else []
    rate = training.learning_rate_at(round, num_rounds)
    update = _OPTIMIZERS[training.optimizer](parameters, training, rate)
    steps = training.num_steps(num_examples)
    batches = _batches(num_examples, training.batch_size_for(num_examples), steps, generator)
    total, seen = torch.zeros((), dtype=torch.float64, device=device), 0
    with _mode(model, training=True), _reproducible(generator, device), torch.enable_grad(), _lone_example_named():
        for batch in batches:
            index = batch.to(device)
            inputs = x[index] if augment is None else augment(x[index])
            batch_loss = task.batch_loss(model, inputs, y[index])
            gradients: Sequence[Tensor | None] = torch.autograd.grad(batch_loss, parameters, allow_unused=True)
            if proximal_mu:
                gradients = _proximal(gradients, parameters, start, proximal_mu)
            with torch.no_grad():
                for hook in hooks:
                    gradients = hook.before_step(model, gradients)
                update.step(gradients)
                for hook in hooks:
                    hook.after_step(model, gradients, rate)
            total += batch_loss.detach() * len(index)
            seen += len(index)
    return TrainResult(float(total) / seen, num_examples, steps)


class Evaluation(NamedTuple):
    """What a model does on a data set.

    Example:
        >>> from flsec.models import Softmax
        >>> evaluation = evaluate(Softmax((1,), 2), torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 0]))
        >>> evaluation.accuracy, round(evaluation.loss, 4), evaluation.predictions.tolist()
        (1.0, 0.6931, [0, 0])
    """

    loss: float  # mean over the counted labels
    accuracy: float  # share of right predictions
    predictions: Tensor  # int64, of the labels' shape, on the model's device; -100 at places that were not asked for
    measures: dict[str, float]  # all of the task's, accuracy among them


def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None = None, *, task: Task = CLASSIFICATION
) -> Evaluation:
    """Return loss, measures and predictions of ``model`` on (x, y); the model is not changed.

    Args:
        model: used in eval mode, on the device it is on.
        x: (n, ...) inputs.
        y: (n, ...) labels, as the task has them.
        batch_size: examples at a time; bounds the memory and does not change the result. Default 1024, fewer of
            images (65,536 pixels of a channel) and of tokens (16,384, or 2,048 where there is an output for each).
        task: gives the loss, the predictions and what these are judged by.

    Raises:
        ConfigError: no data, x and y of different lengths, or batch_size < 1.

    Example:
        >>> from flsec.models import Softmax
        >>> evaluate(Softmax((1,), 2), torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])).measures
        {'accuracy': 0.5}
    """
    num_examples = _check_data(x, y)
    batch_size = _rows_at_a_time(x, task.labels == "sequence") if batch_size is None else batch_size
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1; got {batch_size}.", parameter="batch_size")
    device = _device_of(model)
    total, counted = torch.zeros((), dtype=torch.float64, device=device), 0
    sums: dict[str, tuple[Any, int]] = {}
    predictions = []
    with _mode(model, training=False), torch.no_grad():
        for start in range(0, num_examples, batch_size):
            rows = slice(start, start + batch_size)
            labels = y[rows].to(device)
            places = task.places(model, labels)
            outputs = task.outputs(model, x[rows].to(device), places)
            predicted = task.predictions(outputs)
            if places is not None:
                everywhere = torch.full_like(labels, NOT_COUNTED)
                everywhere[:, places] = predicted
                predicted, labels = everywhere, labels[:, places]
            predictions.append(predicted)
            count = task.num_counted(labels)
            total += task.loss(outputs, labels) * count
            counted += count
            for name, (value, of) in task.tallies(outputs, labels).items():
                before = sums.get(name, (0, 0))
                sums[name] = before[0] + value, before[1] + of
    loss = float(total) / max(counted, 1)
    measures = task.summary(loss, {name: _mean(value, of) for name, (value, of) in sums.items()})
    return Evaluation(loss, measures["accuracy"], torch.cat(predictions), measures)


def _mean(value: Tensor, count: int) -> Any:
    return value / max(count, 1) if value.ndim else float(value) / max(count, 1)


def _rows_at_a_time(x: Tensor, output_for_each: bool = False) -> int:
    """Return how many examples to evaluate at once.

    Beyond some megabytes a buffer, the system gives out and takes back every layer's memory anew, which took longer
    than the convolutions of ResNet-20 in batches of 1024. Attention takes much for each token, and a vocabulary of
    logits at each place more.
    """
    if x.is_floating_point():
        pixels = math.prod(x.shape[2:]) if x.ndim == 4 else 1
        return min(1024, max(1, 65_536 // max(1, pixels)))
    return min(1024, max(1, (2_048 if output_for_each else 16_384) // max(1, math.prod(x.shape[1:]))))


def predictions_of(
    model: nn.Module, x: Tensor, batch_size: int | None = None, *, task: Task = CLASSIFICATION
) -> Tensor:
    """Return the task's predictions of ``model`` for x, (n,) or (n, L), on the CPU; the model is not changed.

    Logits are held for a batch at a time, never for all of x.

    Args:
        model: used in eval mode, on the device it is on.
        x: (n, ...) inputs.
        batch_size: see ``evaluate``.
        task: makes predictions of logits.
    """
    device = _device_of(model)
    batch_size = _rows_at_a_time(x, task.labels == "sequence") if batch_size is None else batch_size
    with _mode(model, training=False), torch.no_grad():
        batches = [x[start : start + batch_size] for start in range(0, len(x), batch_size)]
        return torch.cat([task.predictions(task.outputs(model, batch.to(device))).cpu() for batch in batches])


def logits_of(model: nn.Module, x: Tensor, batch_size: int | None = None) -> Tensor:
    """Return the logits of ``model`` for x, (n, C) or (n, L, C), on the CPU; the model is not changed.

    Args:
        model: used in eval mode, on the device it is on.
        x: (n, ...) inputs.
        batch_size: examples at a time; bounds the memory and does not change the result. Default as for ``evaluate``.

    Example:
        >>> model = nn.Linear(1, 2)
        >>> set_weights(model, [np.array([[1.0], [-1.0]]), np.zeros(2)])
        >>> logits_of(model, torch.tensor([[3.0]])).tolist()
        [[3.0, -3.0]]
    """
    device = _device_of(model)
    batch_size = _rows_at_a_time(x) if batch_size is None else batch_size
    with _mode(model, training=False), torch.no_grad():
        batches = [x[start : start + batch_size] for start in range(0, len(x), batch_size)]
        return torch.cat([model(batch.to(device)).cpu() for batch in batches])


def weight_names(model: nn.Module) -> list[str]:
    """Return the names of all parameters and buffers that travel, in the order of ``get_weights``.

    These are the model's state dict; or what its method ``exchanged_state() -> dict[str, Tensor]`` returns, where it
    has one: a large model may exchange its adapters alone.

    Example:
        >>> weight_names(nn.BatchNorm1d(3))
        ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """
    return list(_state(model))


def get_weights(model: nn.Module) -> list[npt.NDArray[Any]]:
    """Return copies of all parameters and buffers as arrays; integer buffers stay integers, scalars stay 0-d.

    bfloat16, which numpy does not know, becomes raw 2-byte values of dtype ``|V2``.

    Example:
        >>> [array.shape for array in get_weights(nn.Linear(3, 2))]
        [(2, 3), (2,)]
    """
    return [np.array(array_of(tensor)) for tensor in _state(model).values()]


def set_weights(model: nn.Module, arrays: Sequence[npt.ArrayLike]) -> None:
    """Copy ``arrays`` into the parameters and buffers of ``model``; all of them, or none if one does not fit.

    Args:
        model: changed in place; keeps its dtypes and its device.
        arrays: in the order of ``weight_names``, of any floating type, bfloat16 as ``get_weights`` has it. A fraction
            that arrives for an integer buffer is cut off.

    Raises:
        ConfigError: another number of arrays, or another shape; the message names the entry.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> set_weights(model, [np.array([[2.0]]), np.array([1.0])])
        >>> model(torch.tensor([[3.0]])).item()
        7.0
    """
    state = _state(model)
    if len(arrays) != len(state):
        raise ConfigError(f"the model has {len(state)} parameters and buffers; got {len(arrays)} arrays.")
    for (name, tensor), array in zip(state.items(), arrays, strict=True):
        if np.shape(array) != tuple(tensor.shape):
            raise ConfigError(
                f"{name} has the shape {tuple(tensor.shape)}; got {np.shape(array)}. "
                "Do server and client build the same model?"
            )
    with torch.no_grad():
        for tensor, array in zip(state.values(), arrays, strict=True):
            tensor.copy_(tensor_of(array))


def pick_device(name: Literal["auto", "cpu", "cuda"] = "auto") -> torch.device:
    """Return the device to train on; ``"auto"`` is the GPU where there is one.

    Raises:
        ConfigError: an unknown name, or ``"cuda"`` without a usable GPU.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be one of 'auto', 'cpu', 'cuda'; got {name!r}.", parameter="device")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            "device 'cuda': torch sees no GPU here. Use 'cpu' or 'auto', install a CUDA build of torch, "
            "or, in a simulation, give the clients a share of the GPU with client_resources.num_gpus.",
            parameter="device",
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


# torch.optim imports its compiler at the first use: 1.4 s and 150 MB in every worker process, for the few lines below.


class _SGD:
    def __init__(self, parameters: list[nn.Parameter], training: Training, rate: float):
        self._parameters, self._settings, self._rate = parameters, training, rate
        self._velocities = [torch.zeros_like(p) for p in parameters] if training.momentum else []

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        for i, (p, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            if gradient is None:  # the loss does not depend on p
                continue
            direction = _decayed(gradient, p, self._settings.weight_decay)
            if self._velocities:
                direction = self._velocities[i].mul_(self._settings.momentum).add_(direction)
            p.add_(direction, alpha=-self._rate)


class _Adam:
    _BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, parameters: list[nn.Parameter], training: Training, rate: float):
        self._parameters, self._settings, self._rate = parameters, training, rate
        self._means = [torch.zeros_like(p) for p in parameters]
        self._squares = [torch.zeros_like(p) for p in parameters]
        self._count = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        self._count += 1
        unbias1, unbias2 = 1 - self._BETA1**self._count, 1 - self._BETA2**self._count
        for p, gradient, mean, square in zip(self._parameters, gradients, self._means, self._squares, strict=True):
            if gradient is None:  # the loss does not depend on p
                continue
            g = _decayed(gradient, p, self._settings.weight_decay)
            mean.lerp_(g, 1 - self._BETA1)
            square.mul_(self._BETA2).addcmul_(g, g, value=1 - self._BETA2)
            p.addcdiv_(mean, (square / unbias2).sqrt_().add_(self._EPSILON), value=-self._rate / unbias1)


_OPTIMIZERS: dict[str, type[_SGD] | type[_Adam]] = {"sgd": _SGD, "adam": _Adam}


def _decayed(gradient: Tensor, parameter: Tensor, weight_decay: float) -> Tensor:
    # not in place: autograd may hand one tensor to two parameters
    return gradient.add(parameter, alpha=weight_decay) if weight_decay else gradient


@torch.no_grad()
def _proximal(
    gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], start: Sequence[Tensor], mu: float
) -> list[Tensor | None]:
    # a parameter that the loss does not depend on is still where it started
    return [
        None if gradient is None else gradient.add(p - p_start, alpha=mu)
        for gradient, p, p_start in zip(gradients, parameters, start, strict=True)
    ]


def _batches(num_examples: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield ``steps`` index vectors: shuffled passes over the data, each cut into batches."""
    while steps > 0:
        order = torch.randperm(num_examples, generator=generator, device=generator.device)
        for start in range(0, min(num_examples, steps * batch_size), batch_size):
            yield order[start : start + batch_size]
            steps -= 1


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    if all(mode == training for mode in before.values()):  # as most clients' models are; setting it takes a while
        yield
        return
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@contextmanager
def _lone_example_named() -> Iterator[None]:
    """Say what to do where BatchNorm gets a batch of one example whose maps are single values."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "BatchNorm needs more than one value a channel, and a batch of one example gave it one. Choose a "
            "batch_size that leaves no batch of one example, or a network with another normalisation.",
            parameter="batch_size",
        ) from None


@contextmanager
def _reproducible(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Let layers that draw from torch's global state (dropout) draw from ``generator``; then restore that state."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    gpus = [device] if device.type == "cuda" else []
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        try:
            cudnn.deterministic, cudnn.benchmark = True, False
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = flags


def _check_data(x: Tensor, y: Tensor) -> int:
    if len(x) != len(y):
        raise ConfigError(f"x and y must hold the same number of examples; got {len(x)} and {len(y)}.")
    if len(x) == 0:
        raise ConfigError(
            "the data set is empty: at least one example is needed. "
            "A partitioner's minimum size keeps clients from ending up without data."
        )
    return len(x)


def _device_of(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def _state(model: nn.Module) -> dict[str, Tensor]:
    """What of a model travels: its state dict, or what its method ``exchanged_state`` returns, such as adapters."""
    state: dict[str, Any] = getattr(model, "exchanged_state", model.state_dict)()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}  # a module may keep others
