"""What hostile clients do, and how one object decorates a class, wraps a client, or is a ClientApp's mod."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from flwr.app import Message
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from flsec import _numbers
from flsec.attacks.adversaries import Adversaries
from flsec.attacks.cohort_view import ADVERSARY
from flsec.client_apps._around import FitResult as FitResult
from flsec.client_apps._around import HonestFit as HonestFit
from flsec.client_apps._around import NDArrays as NDArrays
from flsec.client_apps._around import (
    checked_result,
    client_id_of,
    decorated_class,
    decorated_client,
    decorated_client_fn,
    round_of,
)
from flsec.client_apps._data_attribute import DataAttribute
from flsec.client_apps._hooks import AttackContext as AttackContext
from flsec.client_apps._hooks import AttackHooks
from flsec.client_apps._hooks import Predict as Predict
from flsec.client_apps._mod import Mod, run_mod
from flsec.client_apps._state import given_positions, state_of_client
from flsec.data._keys import Key
from flsec.errors import ConfigError
from flsec.parameters import Count, checked, parameters_of
from flsec.state_arrays import HasStateDict

__all__ = ["Attack", "AttackContext", "ClientDecorator", "Knowledge", "Predict", "forms_of"]

Knowledge = Literal["own", "colluders", "all"]


class ClientDecorator:
    """Something around a client's ``fit``: an attack, or what a defense has its clients do.

    Decorates a ``NumPyClient`` class, wraps an instance, a ``Client`` made from one, or a ``client_fn``; and is a mod
    of a ClientApp, through ``mod``.

    Raises:
        ConfigError: called with what is no client, no client class and no ``client_fn``.

    Example:
        >>> class Twice(ClientDecorator):
        ...     def fit(self, client, honest_fit, parameters, config):
        ...         local, _, _ = honest_fit(parameters, config)
        ...         return honest_fit(local, config)
        >>> class Client(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return [parameters[0] + 1.0], 10, {}
        >>> Twice()(Client()).fit([np.zeros(1)], {})[0]
        [array([2.])]
    """

    _verb: ClassVar[str] = "decorates"

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Run one round of a client around its own ``fit``.

        Args:
            client: the client, with its attributes.
            honest_fit: its own ``fit``, of what is inside.
            parameters: what the server sent.
            config: the fit configuration that the server sent.

        Returns:
            What a NumPyClient's ``fit`` returns.
        """
        raise NotImplementedError

    def around_fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Run one round of a decorated client; ``fit``, in the rounds in which there is something to do."""
        return self.fit(client, honest_fit, parameters, config)

    @property
    def needs_client(self) -> bool:
        """Whether, as a mod, this must reach the client inside, which takes ``flsec.client_apps.numpy_client_app``."""
        return True

    @property
    def mod(self) -> Mod:
        """This as a mod of a ClientApp.

        What changes training data reaches those of apps made by ``flsec.client_apps.numpy_client_app``, and of
        functions that pass their data through ``flsec.client_apps.poisoned``; what else goes around a client's fit
        needs an app of the former kind. Elsewhere the client fails with a message.
        """
        return self._run_mod

    def _run_mod(self, *call: Any) -> Any:
        return run_mod(self, *call)

    def __call__(self, target: Any, *more: Any) -> Any:
        """Return the decorated version of a NumPyClient class, a client, or a ``client_fn``."""
        name = type(self).__name__
        if more:  # as Flower calls a mod
            raise no_mod(name)
        if isinstance(target, type) and issubclass(target, NumPyClient):
            return decorated_class(self, target)
        if isinstance(target, NumPyClient):
            return decorated_client(self, target)
        if isinstance(target, Client) and hasattr(target, "numpy_client"):
            return self(target.numpy_client).to_client()
        if callable(target) and not isinstance(target, type | Client | ClientApp | ClientDecorator):
            if _takes_messages(target):
                raise ConfigError(
                    f"{name} goes around a client_fn, which takes a context; this function takes a message as well. "
                    f"Give it as a mod: @app.train(mods=[{name}(...).mod])."
                )
            return decorated_client_fn(self, target)
        app = (
            f" An app takes it as a mod: ClientApp(..., mods=[{name}(...).mod])."
            if isinstance(target, ClientApp)
            else ""
        )
        raise ConfigError(
            f"{name} {self._verb} a NumPyClient (class, instance, or its to_client()) or a client_fn; got "
            f"{target!r:.200}.{app}"
        )

    @classmethod
    def _misused(cls, args: tuple[Any, ...]) -> ConfigError | None:
        """Return what is wrong with a constructor's arguments if they are what an instance is called with."""
        if len(args) == 3 and isinstance(args[0], Message):
            return no_mod(cls.__name__)
        if len(args) == 1 and (callable(args[0]) or isinstance(args[0], NumPyClient | Client)):
            target = getattr(args[0], "__name__", "client")
            return ConfigError(
                f"{cls.__name__} takes its settings first, by name, and then what it {cls._verb}. For example: "
                f"{cls.__name__}(...)({target if target.isidentifier() else 'client_fn'}), or "
                f"@{cls.__name__}(...) above a class."
            )
        return None


def _takes_messages(function: Callable[..., Any]) -> bool:
    """Whether a function looks like one that ``@app.train()`` takes: with two arguments that must be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in ones have no signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) == 2


def no_mod(name: str) -> ConfigError:
    """Return the error that says what goes into a ClientApp's mods."""
    return ConfigError(f"{name} is no mod itself, its property mod is: mods=[{name}(...).mod].")


@checked
class Attack(AttackHooks, ClientDecorator):
    """A hostile client's behaviour.

    An attack poisons the training data (``poison``), the upload (``poison_update``), what the client reports beside it
    (``poison_metrics``), or several of these. Attackers who work together replace all their uploads at once
    (``poison_cohort``); that part is done by the strategy wrapper ``Adversary``, in simulations, and a client whose
    server has none refuses to train. The same object

    - decorates a ``NumPyClient`` class, or wraps an instance, a ``Client`` made from one, or a ``client_fn``;
    - is a mod of a ClientApp of either API, through its ``mod`` property.

    Stacked attacks act like nested functions: the one nearest to the client changes the upload first, and sees the data
    last. In rounds in which the client is no adversary, it behaves exactly as if it were not decorated.

    Args:
        adversaries: who attacks, and when; everyone, always, if left out. Needs the client's partition id: its
            ``client_id`` or ``partition_id`` attribute, or Flower's ``partition-id``.
        camp: attack only as a member of this camp of ``adversaries``.
        data_attribute: where the client keeps its training data, in a shape that ``flsec.data.training_data`` takes:
            a name, a path such as ``"module.trainset"``, or the two names of inputs and labels,
            ``"x_train,y_train"``. The data are replaced while the client trains, never changed.
        inputs_key: where an example has its inputs: a key of a dictionary, a position in a tuple, or the columns of a
            frame; null: its usual name (``img``, ``x``, ``input_ids``, ``text``, ...), or the first position.
        labels_key: likewise its label (``label``, ``labels``, ``y``, ``target``, ...), or the second position.
        attack_state: attack state as well: BatchNorm's ``running_mean`` and ``running_var``, which are no weights.
            Otherwise the client uploads what it would honestly have there. Counters and other integers stay as they
            are in any case.
        state_arrays: which of the model's arrays are state: their positions, or a torch module whose state dict has
            the arrays' order. Null: those that have BatchNorm's names, where the arrays have names; else those of the
            client's attribute that is a torch module of these arrays; else those that follow BatchNorm's pattern, see
            ``flsec.state_arrays``.
        seed: the seed of the run. Random numbers depend on it, the round and the partition id alone: attackers that
            know neither round nor id draw the same ones, every time.

    Raises:
        ConfigError: a parameter out of its range, or a camp that ``adversaries`` does not have.
            In a round: the attack cannot work there, since no ``Adversary`` completes it, or the client reads no
            poisoned data; or who attacks cannot be told, for want of the round or the client's id.

    Example:
        >>> class Shout(Attack):
        ...     def poison_update(self, global_, local, context):
        ...         return [g + 9 * (w - g) for g, w in zip(global_, local)]
        >>> @Shout()
        ... class Client(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return [parameters[0] + 1], 10, {}
        >>> Client().fit([np.zeros(2)], {})
        ([array([9., 9.])], 10, {})
    """

    knowledge: Knowledge = "own"  # whose updates the attacker sees
    knows_defense: ClassVar[bool] = False  # whether it is told the defense's parameters, or may try the defense out
    _verb: ClassVar[str] = "attacks"

    def __init__(
        self,
        *,
        adversaries: Adversaries | None = None,
        camp: str | None = None,
        data_attribute: str | Sequence[str] = "trainset",
        inputs_key: Key | Sequence[str] | None = None,
        labels_key: Key | None = None,
        attack_state: bool = False,
        state_arrays: Sequence[Count] | HasStateDict | None = None,
        seed: int = 0,
    ) -> None:
        camps = list((adversaries and adversaries.camps) or ())
        if camp is not None and camp not in camps:
            raise ConfigError(
                f"{type(self).__name__}: camp must name one of the camps of adversaries, "
                f"{', '.join(map(repr, camps)) or 'which has none'}; got {camp!r}. Use one of them, or leave camp out.",
                parameter="camp",
            )
        self.adversaries = adversaries
        self.camp = camp
        DataAttribute(data_attribute)  # says what is wrong with it before any training
        self.data_attribute = data_attribute
        self.inputs_key = inputs_key
        self.labels_key = labels_key
        self.attack_state = attack_state
        self.state_arrays = given_positions(state_arrays)
        self.seed = seed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls)

    # --- what it needs, by what it overrides ------------------------------------------------------------------

    @property
    def needs_client(self) -> bool:
        """Whether, as a mod, this attack must reach the client itself, and not only its data and its upload."""
        return type(self).fit is not Attack.fit

    @property
    def forms(self) -> tuple[str, ...]:
        """How this attack can be put on clients; anything else is refused when the client trains.

        ``"decorator"``: of a NumPyClient class, an instance, or a client_fn. ``"mod"``: of an app with a NumPyClient
        in it, made by ``flsec.client_apps.numpy_client_app``. ``"Message API"``: a mod of any train function; one that
        poisons data needs the function to pass its data through ``flsec.client_apps.poisoned``. ``"simulation only"``:
        any of these, but only where the server's strategy is in an ``Adversary``, as in simulations.
        """
        if self.poisons_cohort:
            return ("simulation only",)
        return ("decorator", "mod") if self.needs_client else ("decorator", "mod", "Message API")

    # --- who and when ---------------------------------------------------------------------------------------

    def context_for(self, client: Any, config: Mapping[str, Any]) -> AttackContext:
        """Return what an attacker knows in this round."""
        return AttackContext(round_of(config), client_id_of(client), config, self.seed)

    def attacks(self, context: AttackContext) -> bool:
        """Return whether this client attacks now."""
        who = self.adversaries
        if who is None:
            return True
        name = type(self).__name__
        if context.round < 1:
            raise ConfigError(
                f"{name}: adversaries are chosen by round, but the fit configuration has no 'server-round'. flsec's "
                "strategies and Flower's Message API send it; with a bare classic strategy use on_fit_config_fn."
            )
        if context.client_id < 0:
            raise ConfigError(
                f"{name}: adversaries are chosen by client, but this client does not say which it is. Give it an "
                "attribute client_id (its partition id), or decorate its client_fn or use the mod, which see the "
                "'partition-id' that Flower's simulation gives each node."
            )
        if not who.is_adversary(context.client_id, context.round):
            return False
        return self.camp is None or who.camp(context.client_id, context.round) == self.camp

    def acts(self, context: AttackContext) -> bool:
        """Return whether this client attacks now.

        Raises:
            ConfigError: it would, and the attack takes an ``Adversary`` on the server, which has none.
        """
        if not self.attacks(context):
            return False
        name = type(self).__name__
        if self.poisons_cohort and name not in str(context.config.get(ADVERSARY, "")).split(","):
            alone = " With knowledge='own' it needs none." if self._can_act_alone else ""
            raise ConfigError(
                f"{name} needs the updates of several clients, which no client has. Put Adversary(strategy, attacks="
                f"[{name}(...)]), of flsec.strategies, around the server's strategy, as simulations do by themselves; "
                f"this server does not say that it has one.{alone}"
            )
        return True

    @property
    def _can_act_alone(self) -> bool:
        made_by: Callable[..., Attack] = type(self)
        hint = parameters_of(made_by).get("knowledge", ("", None))[0]
        return "own" in getattr(hint, "__args__", ())

    # --- what it does ---------------------------------------------------------------------------------------

    def around_fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Run one round of a decorated client: an attacking one, or an honest one."""
        with self.in_round(client, lambda: parameters, config):
            if not self.acts(self.context_for(client, config)):
                return honest_fit(parameters, config)
            return self.fit(client, honest_fit, parameters, config)

    @contextlib.contextmanager
    def in_round(self, client: Any, parameters: Callable[[], NDArrays], config: Mapping[str, Any]) -> Iterator[None]:
        """Go around every round of a client, attacking or not; by default nothing.

        Args:
            client: the client, or, for a mod, something with its Flower ``context``.
            parameters: gives what the server sent.
            config: the fit configuration that the server sent.
        """
        yield

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Run one round of an attacking client around its honest ``fit``."""
        context = self.context_for(client, config)
        global_ = [np.array(array) for array in parameters]  # training may write into what it was given
        with self.data_replaced(client, context):
            local, num_examples, metrics = checked_result(honest_fit(parameters, config), "fit")
        if self.poisons_update:
            local = self.uploaded(global_, [np.asarray(array) for array in local], context, client=client)
        return local, num_examples, self.poison_metrics(metrics, context) if self.poisons_metrics else metrics

    def uploaded(
        self,
        global_: NDArrays,
        local: NDArrays,
        context: AttackContext,
        *,
        names: Sequence[str] = (),
        client: Any = None,
    ) -> NDArrays:
        """Return what ``poison_update`` makes of the trained parameters, with the honest state in it.

        Args:
            global_: see ``poison_update``.
            local: see ``poison_update``.
            context: see ``poison_update``.
            names: the arrays' names, where they have any.
            client: the client, where it can be reached.
        """
        wide = _numbers.widened(local)
        if not any(array.dtype.kind in "fc" for array in wide):
            kinds = ", ".join(sorted({str(array.dtype) for array in local})) or "none at all"
            raise ConfigError(
                f"{type(self).__name__} attacks a model's floating parameters, and this client's has none: its arrays "
                f"are {kinds}. Use an attack on the training data."
            )
        uploaded = self.poison_update(_numbers.widened(global_), wide, context)
        typed = [
            _numbers.in_dtype(array, np.shape(array), own.dtype) if _numbers.is_bfloat16(own.dtype) else array
            for array, own in zip(uploaded, local, strict=True)
        ]
        return self.with_honest_state(typed, global_, local, names=names, client=client)

    def with_honest_state(
        self, uploaded: NDArrays, global_: NDArrays, local: NDArrays, *, names: Sequence[str] = (), client: Any = None
    ) -> NDArrays:
        """Return an upload in which the arrays that are state are honest ones, unless ``attack_state`` is set."""
        if self.attack_state:
            return uploaded
        state = state_of_client(self.state_arrays, local, names, client, type(self).__name__)
        return [self.honest_state(global_[i], local[i]) if i in state else a for i, a in enumerate(uploaded)]

    def honest_state(self, global_: NDArray[Any], local: NDArray[Any]) -> NDArray[Any]:
        """Return what is uploaded of an array that is state: the client's own."""
        return local


def forms_of(attack: type[Attack], **settings: Any) -> tuple[str, ...]:
    """Return how a class of attacks can be put on clients; see ``Attack.forms``.

    Args:
        attack: the class; it is not constructed, since some need a data set or a model for that.
        **settings: parameters that are not to have their defaults.

    Example:
        >>> from flsec.client_apps import MinMax, SignFlipping
        >>> forms_of(SignFlipping), forms_of(MinMax)
        (('decorator', 'mod', 'Message API'), ('simulation only',))
    """
    return unbuilt(attack, **settings).forms


def unbuilt(attack: type[Attack], **settings: Any) -> Attack:
    """Return an attack that has its parameters and has not been constructed, to ask what it does."""
    blank = object.__new__(attack)
    made_by: Callable[..., Attack] = attack
    vars(blank).update({name: parameter.default for name, (_, parameter) in parameters_of(made_by).items()})
    vars(blank).update(settings)
    return blank
