"""Running something as a mod of a ClientApp: what needs the client is left for it inside, which a mod cannot reach."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from flsec.client_apps._around import FitResult, HonestFit, NDArrays, as_array, decorated_client
from flsec.errors import ConfigError

if TYPE_CHECKING:
    from flsec.client_apps.base import Attack, AttackContext, ClientDecorator

__all__ = ["CallNext", "Mod", "decorated_by_mods", "run_mod"]

CallNext = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, CallNext], Message]


class Waiting:
    """Something to go around the client inside, until an app made by ``numpy_client_app`` puts it there."""

    def __init__(self, around_fit: Callable[..., FitResult]) -> None:
        self._around_fit = around_fit
        self.reached = False

    def around_fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        self.reached = True
        return self._around_fit(client, honest_fit, parameters, config)


_waiting: contextvars.ContextVar[tuple[Waiting, ...]] = contextvars.ContextVar("waiting", default=())


def decorated_by_mods(client: Any) -> Any:
    """Return ``client`` with what the ClientApp's mods have left for it around it."""
    for waiting in reversed(_waiting.get()):
        client = decorated_client(waiting, client)
    return client


def run_mod(decorator: "ClientDecorator", message: Message, context: Context, call_next: CallNext) -> Message:
    """Run a decorator as a mod of the app that ``call_next`` calls.

    Raises:
        ConfigError: it needs the client, or its data, and the app does not let it there.
    """
    if message.metadata.message_type.split(".")[0] != "train":
        return call_next(message, context)
    if not decorator.needs_client:
        return _run_attack(cast("Attack", decorator), message, context, call_next)
    with _left_inside(Waiting(decorator.around_fit)) as waiting:
        reply = call_next(message, context)
    if not waiting.reached and not reply.has_error():
        raise ConfigError(
            f"{type(decorator).__name__} goes around a client's fit, which this mod could not reach. Decorate the "
            "client or its client_fn, or use flsec.client_apps.numpy_client_app."
        )
    return reply


def _run_attack(attack: "Attack", message: Message, context: Context, call_next: CallNext) -> Message:
    """Run an attack of which data alone are changed inside; upload and metrics are changed in the reply."""
    config: dict[str, Any] = dict(next(iter(message.content.config_records.values()), {}))
    received = dict(next(iter(message.content.array_records.values()), {}))  # the client may empty the message
    outside = SimpleNamespace(context=context)  # what is known of the client out here
    with attack.in_round(outside, lambda: [array.numpy() for array in received.values()], config):
        known = attack.context_for(outside, config)
        if not attack.acts(known):
            return call_next(message, context)
        reply = _with_poisoned_data(attack, known, message, context, call_next)
        if reply.has_error():
            return reply
        if attack.poisons_update:
            _change_arrays(attack, reply, received, known)
        if attack.poisons_metrics:
            _change_metrics(attack, reply, known)
        return reply


def _with_poisoned_data(
    attack: "Attack", known: "AttackContext", message: Message, context: Context, call_next: CallNext
) -> Message:
    if not attack.poisons_data:
        return call_next(message, context)
    change = attack.data_change(known)

    def around_fit(client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        with change.in_place_of(client, attack.data_attribute):
            return honest_fit(parameters, config)

    with change.at_work(), _left_inside(Waiting(around_fit)):
        reply = call_next(message, context)
    if not change.was_read and not reply.has_error():
        raise ConfigError(
            f"{type(attack).__name__} poisons training data, which this mod could not reach. Decorate the client or "
            "its client_fn, use flsec.client_apps.numpy_client_app, or load data through "
            "flsec.client_apps.poisoned(trainset)."
        )
    return reply


@contextlib.contextmanager
def _left_inside(waiting: Waiting) -> Iterator[Waiting]:
    """Have ``numpy_client_app`` put ``waiting`` around the client that is called meanwhile."""
    token = _waiting.set((*_waiting.get(), waiting))
    try:
        yield waiting
    finally:
        _waiting.reset(token)


def _change_arrays(attack: "Attack", reply: Message, received: dict[str, Any], known: "AttackContext") -> None:
    key, sent = next(iter(reply.content.array_records.items()), ("", ArrayRecord()))
    if not sent or sent.keys() != received.keys():
        raise ConfigError(
            f"{type(attack).__name__}: the client must send back the arrays that it got, under the same names; "
            f"it got {', '.join(received) or 'none'} and sent {', '.join(sent) or 'none'}."
        )
    global_, local = ([record[name].numpy() for name in received] for record in (received, sent))
    uploaded = attack.uploaded(global_, local, known, names=tuple(received))
    record = ArrayRecord({name: as_array(array) for name, array in zip(received, uploaded, strict=True)})
    # a new RecordDict: the old one may be the message's, which other clients get as well
    reply.content = RecordDict({**reply.content, key: record})


def _change_metrics(attack: "Attack", reply: Message, known: "AttackContext") -> None:
    classic = "fitres.metrics"  # the Message API has one record of metrics, of any name
    key = classic if classic in reply.content else next(iter(reply.content.metric_records), "metrics")
    record: Any = reply.content.get(key, MetricRecord())
    reply.content = RecordDict({**reply.content, key: type(record)(attack.poison_metrics(dict(record), known))})
