"""What everything that can be added to flsec must hold, as functions that third parties can run on their own.

Each runs a battery of checks without pytest and raises ``AssertionError`` with the name of the check that failed and
what it saw.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flsec._contracts.attacks import AUXILIARY_DATA, AttackBattery, AttackedNetwork
from flsec._contracts.battery import run
from flsec._contracts.datasets import DatasetBattery
from flsec._contracts.defenses import DefenseBattery
from flsec._contracts.models import ModelBattery
from flsec._contracts.network import (
    CLIENT_SAMPLES,
    ROOT_DATA,
    TRAINING,
    Network,
    distance_to_median,
    guiding_updates,
)
from flsec._contracts.optimizers import CLIENTS, ONE_STEP, OptimizerBattery
from flsec._contracts.partitioners import PartitionerBattery, bare
from flsec._contracts.rules import RuleBattery
from flsec._contracts.server import MessageServer, NDArrays, Reply, flower_strategy, identify, npy_bytes
from flsec._contracts.tasks import Examples, TaskBattery
from flsec.attacks.adversaries import Adversaries
from flsec.client_apps.base import Attack
from flsec.data.partition import Partition
from flsec.data.source import DataSource
from flsec.data.vocabulary import WordVocabulary
from flsec.errors import ConfigError
from flsec.models import MODELS
from flsec.parameters import Fraction, parameters_of
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Layout
from flsec.tasks import TASKS, Task

__all__ = [
    "EXAMPLE_PARAMETERS",
    "check_attack",
    "check_dataset",
    "check_model",
    "check_partitioner",
    "check_rule",
    "check_server_optimizer",
    "check_strategy",
    "check_task",
    "example",
    "play_rounds",
]

# An example of every parameter that has no default, by its name, whoever takes it. A function is called with the
# (n, d) updates. Of alternatives such as num_trimmed and beta, one is enough.
EXAMPLE_PARAMETERS: dict[str, Any] = {
    "adversaries": Adversaries(num_clients=2**64, ids=[3]),
    "alpha": 0.5,
    "auxiliary_data": AUXILIARY_DATA,
    "boost": 4.0,
    "bucket_size": 2,
    "center": lambda updates: updates.new_zeros(updates.shape[-1]),
    "client_samples": CLIENT_SAMPLES,
    "epsilon": 0.5,
    "guiding_updates": guiding_updates,
    "input_shape": (1,),
    "k": 5,
    "layers": lambda updates: [20, updates.shape[-1] - 20],
    "loss": distance_to_median,
    "max_norm": 3.0,
    "model": lambda updates: updates.new_ones(updates.shape[-1]),
    "model_factory": lambda *defended: Network if defended else AttackedNetwork,
    "momenta": lambda updates: updates.clone(),
    "num_byzantine": 3,
    "num_classes": 2,
    "num_clients": 20,
    "num_iterations": 1,
    "num_selected": 3,
    "num_trimmed": 3,
    "objective": distance_to_median,
    "pairs": [(3, 9), (2, 1)],
    "proximal_mu": 0.1,
    "radius": 3.0,
    "root_data": ROOT_DATA,
    "scale": 4.0,
    "server_momentum": 0.9,
    "server_update": lambda updates: updates.new_ones(updates.shape[-1]),
    "smoothing": 1e-6,
    "std": 0.01,
    "threshold": 2.0,
    "training": TRAINING,
    "vocabulary": WordVocabulary(["pasta", "from", "astoria", "is", "delicious", "we", "go"]),
    "weight_decay": 0.01,
}


def example(target: Callable[..., Any], *args: Any, **parameters: Any) -> dict[str, Any]:
    """Return parameters with which ``target(*args, **parameters)`` works, from ``EXAMPLE_PARAMETERS``.

    Args:
        target: a rule, a defense or an attack; called to see whether the parameters suffice.
        args: its positional arguments, such as the updates or the strategy to wrap.
        parameters: values that are given already.

    Raises:
        LookupError: a required parameter has no example; add one under its name, or pass it.
        ConfigError: the target refuses the examples.

    Example:
        >>> from flsec.client_apps import ModelReplacement
        >>> example(ModelReplacement)
        {'scale': 4.0}
    """
    known = list(parameters_of(target).items())[len(args) :]
    chosen = dict(parameters)
    for name, (_, parameter) in known:
        if parameter.default is inspect.Parameter.empty and name not in chosen:
            if name not in EXAMPLE_PARAMETERS:
                raise LookupError(f"no example for the parameter {name!r}; add one to flsec.testing.EXAMPLE_PARAMETERS")
            chosen[name] = _example_value(name, args)
    optional = [name for name, _ in known if name not in chosen and name in EXAMPLE_PARAMETERS]
    refusal: ConfigError | None = None
    for extra in [{}, *({name: _example_value(name, args)} for name in optional)]:
        try:
            target(*args, **chosen, **extra)
            return {**chosen, **extra}
        except ConfigError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _example_value(name: str, args: Sequence[Any]) -> Any:
    value = EXAMPLE_PARAMETERS[name]
    return value(*args[:1]) if callable(value) else value


def check_rule(
    rule: Callable[[Tensor], Tensor],
    *,
    order_invariant: bool = True,
    shift_equivariant: bool = True,
    scale_equivariant: bool = True,
    min_clients: int = 1,
    num_byzantine: int = 0,
    max_displacement: float = 2.0,
) -> None:
    """Check an aggregation rule, a pure function of an (n, d) tensor of updates to (d,).

    Args:
        rule: the rule with its parameters bound, such as ``partial(krum, num_byzantine=2)``.
        order_invariant: whether the order of rows does not matter; it does to rules that group them.
        shift_equivariant: whether ``rule(u + s) == rule(u) + s``; not so for rules with a centre or a bound.
        scale_equivariant: whether ``rule(c * u) == c * rule(u)`` for c > 0.
        min_clients: the fewest rows that the rule accepts; one row less must raise ``ConfigError``.
        num_byzantine: f, how many hostile rows the rule must withstand; 0 skips the hostile rows.
        max_displacement: how far f hostile rows may move the result from the honest mean, in units of the largest
            distance of an honest row from it.

    Raises:
        AssertionError: the name of the check that failed, and what it saw.

    Example:
        >>> from flsec.aggregation import median
        >>> check_rule(median, num_byzantine=2)
    """
    name = getattr(rule, "__name__", None) or getattr(getattr(rule, "func", rule), "__name__", None)
    run(
        name or repr(rule),
        RuleBattery(
            rule, shift_equivariant, scale_equivariant, min_clients, num_byzantine, max_displacement, order_invariant
        ),
    )


def check_strategy(make: Callable[[FlowerStrategy], RobustStrategy], *, num_clients: int | None = None) -> None:
    """Check a defense in both Flower APIs, around Flower's own FedAvg, FedAdam, FedAvgM and FedProx.

    Args:
        make: wraps a Flower strategy, such as ``lambda inner: Krum(inner, num_byzantine=2)``. Called often; each
            call must return a fresh defense.
        num_clients: honest clients a round; by default two more than the defense needs, and at least 8.

    Raises:
        AssertionError: the name of the check that failed, and what it saw.

    Example:
        >>> from flsec.strategies import Median
        >>> check_strategy(Median)
    """
    probe = make(flower_strategy("classic", "FedAvg", 2))
    needed = max(wrapper.minimum_clients for wrapper in probe.chain())
    run(type(probe).__name__, DefenseBattery(make, probe, needed, num_clients or max(8, needed + 2)))


def check_attack(attack: Attack) -> None:
    """Check an attack as a decorator of a NumPyClient class, an instance and a ``client_fn``, and as a mod.

    Args:
        attack: with its parameters, for data of 10 classes and images of 8 x 8 pixels. Who attacks is set here.

    Raises:
        AssertionError: the name of the check that failed, and what it saw.

    Example:
        >>> from flsec.client_apps import SignFlipping
        >>> check_attack(SignFlipping(scale=4.0))
    """
    attack = copy.copy(attack)
    attack.adversaries, attack.camp = Adversaries(num_clients=4, ids=[1], first_round=2, last_round=2), None
    run(type(attack).__name__, AttackBattery(attack))


def check_dataset(load: Callable[..., DataSource], *, most_repeated: Fraction = 0.02) -> None:
    """Check a data set: a function ``(root=None, ...)`` that returns a ``DataSource``.

    It is loaded here, so its data must be there. A new process is started, to see that it finds the same samples.

    Args:
        load: the function with its parameters bound, such as ``partial(csv, file="mine.csv", label="kind")``.
        most_repeated: which share of the test samples may stand among the training samples, with the same label. A few
            do in most real data; a table of few different values has more. Of large parts 10,000 samples are compared.

    Raises:
        AssertionError: the name of the check that failed, and what it saw.
        ConfigError: the data are not there.

    Example:
        >>> from flsec.data.datasets import digits
        >>> check_dataset(digits)
    """
    run(bare(load)[0].__name__, DatasetBattery(load, most_repeated))


def check_partitioner(
    partitioner: Callable[..., Partition], *, uses_seed: bool = True, shares_samples: bool = False
) -> None:
    """Check a partitioner: a function ``(labels, num_clients, *, seed, ...)`` that returns a ``Partition``.

    Args:
        partitioner: the function with its parameters bound, such as ``partial(dirichlet, alpha=0.5)``; it deals 1000
            samples of 10 classes and 25 natural ids here.
        uses_seed: whether another seed gives clients other samples.
        shares_samples: whether clients may hold the same sample.

    Raises:
        AssertionError: the name of the check that failed, and what it saw.

    Example:
        >>> from flsec.data.partitioners import iid
        >>> check_partitioner(iid)
    """
    run(bare(partitioner)[0].__name__, PartitionerBattery(partitioner, uses_seed, shares_samples))


def check_server_optimizer(make: str | Callable[[], FlowerStrategy], **parameters: Any) -> None:
    """Check what steps on the server: a strategy of Flower's Message API, or a ``ServerOptimizer`` around one.

    Six clients train a small model for real, each with one step over its data, bare and with the median as a defense.

    Args:
        make: makes a fresh strategy that asks all clients there are, such as ``lambda: FedLion(eta=0.01)``; or a name
            as in a file's ``strategy``: ``"fedadam"``, ``"my_package.my_module:FedLion"``.
        parameters: of what is named, beside the name.

    Raises:
        AssertionError: the name of the check that failed, and what it saw.
        ConfigError: the name is none, or refuses its parameters.

    Example:
        >>> check_server_optimizer("fedadam", eta=0.01)
    """
    if isinstance(make, str):
        run(make, OptimizerBattery(_named(make, parameters)))
    elif parameters:
        raise ConfigError("check_server_optimizer takes parameters with a name only; bind those of a callable to it.")
    else:
        run(getattr(make, "__name__", repr(make)), OptimizerBattery(make))


def _named(name: str, parameters: dict[str, Any]) -> Callable[[], FlowerStrategy]:
    """Return what makes a server strategy as a simulation makes it."""
    from flsec.simulations.any_strategy import build_server_strategy, check_strategy
    from flsec.simulations.server_strategies import STRATEGIES

    member = STRATEGIES.get(name)
    check_strategy(name, member)
    known = {"training": ONE_STEP, "num_rounds": 10, "num_clients": len(CLIENTS)}
    supplied = {key: value for key, value in known.items() if key in parameters_of(member)}
    return lambda: build_server_strategy(name, member, {**supplied, **parameters}, len(CLIENTS))


def play_rounds(
    strategy: FlowerStrategy,
    updates: Any,
    *,
    model: nn.Module | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
) -> Tensor:
    """Return the global model after rounds in which each client sends a given update, without network or training.

    The strategy is called as Flower's Message API calls it. ``strategy.last_report`` then tells about the last round.
    Rows must differ: defenses take equal replies for those of secure aggregation.

    Args:
        strategy: a defense, or a strategy of ``flwr.serverapp.strategy``, which asks all clients there are.
        updates: (n, d) floats: row i is what client i's model differs by from the one that it got, and i its id. Or
            (rounds, n, d), for as many rounds; this function goes on from round 1 each time that it is called.
        model: what training starts from, with d floating parameters; None: d zeros.
        metrics: n dicts, what each client reports beside its update.

    Returns:
        (d,) float32: the floating parameters of the global model, one array after the other.

    Raises:
        ConfigError: ``updates`` has another shape, ``metrics`` another length, the strategy is of the classic API or
            waits for more clients; and as the strategy itself, which may ask for more clients than there are.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.strategies import Median
        >>> play_rounds(Median(FedAvg()), [[1.0, 2.0], [1.5, 2.5], [900.0, -900.0]])
        tensor([1.5000, 2.0000])
    """
    start = _flat_model(updates) if model is None else model.state_dict()
    arrays = {name: value.detach().numpy() for name, value in start.items()}
    layout = Layout(list(arrays.values()))
    rounds = _rounds_of(updates, layout.size)
    num_clients = rounds.shape[1]
    _check_can_play(strategy, num_clients)
    if len(metrics) not in (0, num_clients):
        raise ConfigError(
            f"play_rounds needs one dict of metrics for each of {num_clients} clients, or none at all; got "
            f"{len(metrics)}.",
            parameter="metrics",
        )

    def answer(number: int, client: int, sent: NDArrays) -> list[Reply]:
        trained = layout.unflatten(layout.flatten(sent) + rounds[number - 1, client], layout.buffers(sent))
        reported = dict(metrics[client]) if metrics else {}
        return [Reply(tuple(map(npy_bytes, trained)), 1, reported)]

    identify()
    server = MessageServer(strategy, range(num_clients), arrays)
    server.play(range(1, len(rounds) + 1), answer)
    return layout.flatten(server.arrays)


def _flat_model(updates: Any) -> dict[str, Tensor]:
    return {"weights": torch.zeros(_as_floats(updates).shape[-1:])}


def _rounds_of(updates: Any, size: int) -> Tensor:
    """Return (rounds, n, d) float32."""
    rows = _as_floats(updates)
    if rows.ndim not in (2, 3) or rows.shape[-1] != size:
        raise ConfigError(
            f"play_rounds needs updates of shape (n, {size}) or (rounds, n, {size}); got {tuple(rows.shape)}. A row is "
            "a client's update: one number for each floating parameter of the model.",
            parameter="updates",
        )
    return rows if rows.ndim == 3 else rows[None]


def _as_floats(updates: Any) -> Tensor:
    try:
        return torch.as_tensor(updates, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"play_rounds needs updates as numbers, a row of equal length for each client; got {updates!r:.100} "
            f"({error}).",
            parameter="updates",
        ) from None


def _check_can_play(strategy: FlowerStrategy, num_clients: int) -> None:
    """Refuse a strategy of the other API, and one that would wait for more clients without end."""
    base = strategy.base if isinstance(strategy, RobustStrategy) else strategy
    if not hasattr(base, "aggregate_train"):
        raise ConfigError(
            f"play_rounds calls strategies of the Message API; got {type(base).__name__}. Take one of "
            "flwr.serverapp.strategy, such as FedAvg.",
            parameter="strategy",
        )
    wanted = getattr(base, "min_available_nodes", 0)
    if wanted > num_clients:
        raise ConfigError(
            f"play_rounds: {type(base).__name__} waits for {wanted} clients, and there are {num_clients}. Give updates "
            f"of more, or min_available_nodes={num_clients}.",
            parameter="updates",
        )


# --- models and tasks -------------------------------------------------------------------------------------------


def check_model(
    name: str,
    *,
    tasks: Sequence[Task] | None = None,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int = 5,
    without_gradient: Sequence[str] = (),
    starts_constant: bool = False,
    **parameters: Any,
) -> None:
    """Check a model: what its constructor takes, its seed, its outputs, gradients, weights, copies and refusals.

    Args:
        name: as in a file: a model of flsec's, or ``"package.module:Class"`` for one of your own.
        tasks: what it is checked on; default: its ``tasks``, or a classification, of texts where it takes a
            ``vocab_size``.
        input_shape: of one example; default: (3, 12, 14), or (6,) where it reads tokens.
        num_classes: C; where it reads tokens, there are as many classes as tokens.
        without_gradient: names of parameters that a task's loss does not depend on.
        starts_constant: whether initial weights are the same for each seed, such as zeros.
        **parameters: the model's own.

    Raises:
        AssertionError: the name of the check that failed, and what it saw.
        ConfigError: there is no such model.

    Example:
        >>> check_model("mlp", hidden=[8])
    """
    chosen = list(tasks) if tasks is not None else _tasks_of(name)
    shape = input_shape or ((6,) if chosen[0].inputs == "tokens" else (3, 12, 14))
    battery = ModelBattery(name, chosen, shape, num_classes, parameters, without_gradient, starts_constant)
    run(name, battery)


def _tasks_of(name: str) -> list[Task]:
    member = MODELS.get(name)
    default = "text_classification" if "vocab_size" in parameters_of(member) else "classification"
    return [TASKS.get(task)() for task in getattr(member, "tasks", (default,))]


def check_task(task: Task, *, model: nn.Module | None = None, examples: Examples | None = None) -> None:
    """Check a task: its loss and measures, that both add up over batches, its gradient, and what it refuses.

    Args:
        task: with its parameters, for 12 classes or tokens.
        model: serves it; by default a linear layer. A task whose outputs are no logits needs one of its own.
        examples: (x, y) that the model takes; by default images of 1 x 4 x 4 pixels, or sequences of 6 tokens.

    Raises:
        AssertionError: the name of the check that failed, and what it saw.

    Example:
        >>> from flsec.tasks import Classification
        >>> check_task(Classification())
    """
    run(task.name, TaskBattery(task, model, examples))
