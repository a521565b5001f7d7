"""The checks of an attack."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from flsec._contracts.battery import check_documented, check_refuses_nonsense, equal, pickled
from flsec._contracts.server import NDArrays, flower_array, identify, npy_bytes
from flsec.attacks.cohort_view import ADVERSARY, CohortView, Rehearsal
from flsec.client_apps.app import numpy_client_app
from flsec.client_apps.base import Attack
from flsec.data.source import ArrayDataset
from flsec.errors import ConfigError

_WEIGHTS: tuple[NDArray[Any], ...] = (
    np.linspace(-1, 1, 640, dtype=np.float32).reshape(10, 64),
    np.zeros(10, np.float32),
    np.array(3),  # as BatchNorm counts
    np.eye(10, dtype=np.float32),
    np.zeros(10, np.float32),
)


def _images() -> tuple[NDArray[Any], NDArray[Any]]:
    x = np.random.default_rng(0).random((30, 1, 8, 8), np.float32)
    return x, np.arange(30) % 10


def _texts() -> tuple[NDArray[Any], NDArray[Any]]:
    return np.random.default_rng(0).integers(2, 10, (30, 64)), np.arange(30) % 10


AUXILIARY_DATA = tuple(map(torch.from_numpy, _images()))


class AttackedNetwork(torch.nn.Module):
    """The clients' model as a network, for attacks that train one."""

    def __init__(self) -> None:
        super().__init__()
        weight, bias, steps, *output = (torch.from_numpy(array.copy()) for array in _WEIGHTS)
        self.weight, self.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
        self.register_buffer("steps", steps)
        with torch.random.fork_rng(devices=[]):
            self.output = torch.nn.Linear(10, 10)
        self.output.weight, self.output.bias = map(torch.nn.Parameter, output)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(x.flatten(1) @ self.weight.T + self.bias)
        return logits


class _Client(NumPyClient):
    """Trains for one step on all of its data, and returns its own weights, not copies."""

    def __init__(self, client_id: int, data_attribute: str, data: Any):
        self.client_id = client_id
        self.data_attribute = data_attribute
        setattr(self, data_attribute, data)
        self.weights: NDArrays = []

    def _batch(self) -> tuple[NDArray[Any], NDArray[Any]]:
        data = getattr(self, self.data_attribute)
        if not isinstance(data, tuple | list):
            items = list(data) if isinstance(data, DataLoader) else [data[i] for i in range(len(data))]
            pairs = [item.values() if isinstance(item, dict) else item for item in items]
            parts = [(np.asarray(x).reshape(-1, 64), np.asarray(y).reshape(-1)) for x, y in pairs]
            data = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
        x, y = data
        return np.asarray(x).reshape(len(x), 64), np.eye(10, dtype=np.float32)[np.asarray(y)]

    def get_properties(self, config: Any) -> dict[str, Any]:
        return {"client": self.client_id, **config}

    def get_parameters(self, config: Any) -> NDArrays:
        return [array.copy() for array in _WEIGHTS]

    def fit(self, parameters: NDArrays, config: Any) -> tuple[NDArrays, int, dict[str, Any]]:
        x, y = self._batch()
        self.weights = [
            parameters[0] + y.T @ x / np.float32(len(x)),
            parameters[1] + y.mean(axis=0),
            parameters[2] + 1,
            parameters[3] + y.T @ y / np.float32(len(x)),
            parameters[4] - y.mean(axis=0),
        ]
        return self.weights, len(x), {"train-loss": float(x.mean())}

    def evaluate(self, parameters: NDArrays, config: Any) -> tuple[float, int, dict[str, Any]]:
        x, y = self._batch()
        return float(((x @ parameters[0].T - y) ** 2).mean()), len(x), {"accuracy": 0.5}


class _Failing(_Client):
    def fit(self, parameters: NDArrays, config: Any) -> tuple[NDArrays, int, dict[str, Any]]:
        raise InterruptedError("no power")


Fit = tuple[NDArrays, int, dict[str, Any]]


class AttackBattery:
    def __init__(self, attack: Attack):
        identify()
        self._attack = attack
        self._data = _texts if getattr(attack, "fits_inputs", None) == "tokens" else _images

    def _config(self, round: int) -> dict[str, Any]:
        """Return what a server sends that completes the attack where it must."""
        return {"server-round": round, ADVERSARY: type(self._attack).__name__}

    def _fit(self, client: Any, round: int) -> Fit:
        weights, num_examples, metrics = client.fit([array.copy() for array in _WEIGHTS], self._config(round))
        return [np.array(array) for array in weights], num_examples, metrics

    def _client(self, client_id: int = 1, data: Any = None, kind: type[_Client] = _Client) -> _Client:
        return kind(client_id, str(self._attack.data_attribute), self._data() if data is None else data)

    def _forms(self, client_id: int) -> dict[str, Callable[[int], Fit]]:
        """Return {form: fit of an attacked client in a round}."""
        attack = self._attack

        def client_fn(context: Context) -> Any:
            return self._client(int(context.node_config["partition-id"])).to_client()

        node = Context(1, 99, {"partition-id": client_id, "num-partitions": 4}, RecordDict(), {})
        of_class = attack(_Client)(client_id, attack.data_attribute, self._data())
        clients = {
            "class": of_class,
            "instance": attack(self._client(client_id)),
            "to_client()": attack(self._client(client_id).to_client()).numpy_client,
            "client_fn": attack(client_fn)(node).numpy_client,
        }
        forms: dict[str, Callable[[int], Fit]] = {
            name: lambda round, client=client: self._fit(client, round)  # type: ignore[misc]
            for name, client in clients.items()
        }
        apps = {"mod, Message API": numpy_client_app(client_fn, mods=[attack.mod])}
        if not attack.poisons_data:  # a mod around Flower's own client_fn cannot reach the data
            apps["mod, classic API"] = ClientApp(client_fn, mods=[attack.mod])
        return forms | {
            name: lambda round, app=app: _fit_by_message(app, node, self._config(round)) for name, app in apps.items()
        }

    def is_documented(self) -> None:
        check_documented(type(self._attack))

    def refuses_bad_parameters(self) -> None:
        check_refuses_nonsense(type(self._attack))

    def keeps_the_clients_type(self) -> None:
        decorated = self._attack(_Client)
        assert issubclass(decorated, _Client), "a decorated class is no subclass"
        assert decorated.__name__ == "_Client", f"a decorated class is called {decorated.__name__}"
        assert isinstance(self._attack(self._client()), _Client), "a wrapped client has another type"

    def does_what_it_says(self) -> None:
        honest = self._fit(self._client(), 2)
        attacked = self._fit(self._attack(self._client()), 2)
        attack = self._attack
        if attack.poisons_data or attack.poisons_update or attack.poisons_metrics:
            assert not equal(honest, attacked), "an attacking client sends what an honest one sends"
        else:
            assert attack.poisons_cohort, "it changes neither data nor upload nor metrics"
            assert equal(honest, attacked), "what Adversary is to replace is changed on the client already"
        for a, b in zip(attacked[0], honest[0], strict=True):
            assert a.shape == b.shape, f"an array of shape {a.shape} is uploaded in place of {b.shape}"
            assert a.dtype == b.dtype, f"an array of {a.dtype} is uploaded in place of {b.dtype}"

    def refuses_to_attack_where_nobody_completes_it(self) -> None:
        if not self._attack.poisons_cohort:
            return
        try:
            self._attack(self._client()).fit([array.copy() for array in _WEIGHTS], {"server-round": 2})
        except ConfigError:
            return
        raise AssertionError("without an Adversary on the server, an attacking client is silently honest")

    def is_the_same_in_all_forms(self) -> None:
        reference = self._fit(self._attack(self._client()), 2)
        for form, fit in self._forms(client_id=1).items():
            assert equal(fit(2)[:2], reference[:2]), f"{form}: other results than for an instance"

    def leaves_honest_rounds_and_clients_alone(self) -> None:
        for client_id, round in ((1, 1), (1, 3), (0, 2)):
            honest = self._fit(self._client(client_id), round)
            for form, fit in self._forms(client_id).items():
                assert equal(fit(round)[:2], honest[:2]), f"{form}: client {client_id} attacks in round {round}"

    def leaves_evaluation_and_properties_alone(self) -> None:
        honest, config = self._client(), self._config(2)
        weights = honest.get_parameters({})
        for form, client in {
            "class": self._attack(_Client)(1, str(self._attack.data_attribute), self._data()),
            "instance": self._attack(self._client()),
        }.items():
            self._fit(client, 2)
            same = equal(client.evaluate(weights, config), honest.evaluate(weights, config))
            assert same, f"{form}: evaluate differs"
            assert client.get_properties(config=config) == honest.get_properties(config=config), form
            assert equal(client.get_parameters(config=config), weights), f"{form}: get_parameters differs"
        app = numpy_client_app(lambda _: self._client(), mods=[self._attack.mod])
        loss, _, _ = honest.evaluate(weights, config)
        node = Context(1, 99, {"partition-id": 1}, RecordDict(), {})
        reply = app(_instruction("evaluate", ("arrays", "config"), self._config(2)), node)
        assert reply.content.metric_records["metrics"]["loss"] == loss, "mod: evaluate differs"

    def does_not_modify_what_it_is_given(self) -> None:
        x, y = self._data()
        for form, data in self._data_forms(x, y).items():
            client = self._client(data=data)
            attacked = self._attack(client)
            given = [array.copy() for array in _WEIGHTS]
            attacked.fit(given, self._config(2))
            assert equal((x, y), self._data()), f"{form}: the caller's data were changed"
            assert equal(given, list(_WEIGHTS)), f"{form}: the parameters that the server sent were changed"
            for owner in (client, attacked):
                assert getattr(owner, str(self._attack.data_attribute)) is data, f"{form}: the data were not put back"
            if not self._attack.poisons_data:
                honest = self._fit(self._client(data=data), 2)[0]
                assert equal(attacked.weights, honest), f"{form}: the client's own weights were changed"
        failing = self._attack(self._client(data=data, kind=_Failing))
        try:
            self._fit(failing, 2)
        except InterruptedError:
            assert getattr(failing, str(self._attack.data_attribute)) is data, (
                "the data were not put back after an error"
            )
        else:
            raise AssertionError("an error of the client is hidden")

    def _data_forms(self, x: NDArray[Any], y: NDArray[Any]) -> dict[str, Any]:
        dataset = ArrayDataset(x, y, tokens=x.dtype.kind == "i")
        dictionaries: Any = _Dictionaries(x, y)
        return {
            "(x, y) arrays": (x, y),
            "Dataset": dataset,
            "list of pairs as Dataset": _Pairs(x, y),
            "DataLoader": DataLoader(dataset, batch_size=7),
            "DataLoader of dictionaries": DataLoader(dictionaries, batch_size=7),
        }

    def treats_all_forms_of_data_alike(self) -> None:
        reference = self._fit(self._attack(self._client()), 2)
        for form, data in self._data_forms(*self._data()).items():
            result = self._fit(self._attack(self._client(data=data)), 2)
            for a, b in zip(result[0], reference[0], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=form)

    def depends_on_its_seed_alone(self) -> None:
        results = []
        for seed in (1, 2):
            np.random.seed(seed)
            random.seed(seed)
            torch.manual_seed(seed)
            before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
            results.append(self._fit(self._attack(self._client()), 2))
            after = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
            assert torch.equal(before[0], after[0]), "torch's global random state was used"
            assert np.array_equal(before[1], after[1]), "numpy's global random state was used"
            assert before[2] == after[2], "Python's global random state was used"
        assert equal(*results), "two runs with one seed differ"

    def replaces_rows_of_a_cohort_as_promised(self) -> None:
        if not self._attack.poisons_cohort:
            return
        for num_attackers, num_others in ((3, 8), (1, 8), (3, 0)):
            view, same = (_view(self._attack, num_attackers, num_others) for _ in range(2))
            uploads = self._attack.poison_cohort(view)
            case = f"{num_attackers} attackers, {num_others} others"
            assert uploads.shape == view.own.shape, f"{case}: rows of shape {tuple(uploads.shape)}"
            assert uploads.isfinite().all(), f"{case}: rows that are not finite"
            assert torch.equal(view.own, same.own), f"{case}: the attackers' own updates were changed in place"
            if view.others is not None and same.others is not None:
                assert torch.equal(view.others, same.others), f"{case}: the others' updates were changed in place"
            assert torch.equal(self._attack.poison_cohort(same), uploads), f"{case}: two calls differ"
            changed = not torch.equal(uploads, view.own)
            assert changed or (num_attackers, num_others) != (3, 8), f"{case}: the attackers upload what they had"

    def survives_pickling(self) -> None:
        reference = self._fit(self._attack(self._client()), 2)
        copied = pickled(self._attack)
        assert equal(self._fit(copied(self._client()), 2), reference), "a copy of the attack acts differently"
        for form, client in {
            "class": self._attack(_Client)(1, str(self._attack.data_attribute), self._data()),
            "instance": self._attack(self._client()),
        }.items():
            assert equal(self._fit(pickled(client), 2), reference), f"{form}: a copy of the client acts differently"
        assert callable(pickled(self._attack.mod)), "the mod cannot be copied"


def _view(attack: Attack, num_attackers: int, num_others: int) -> CohortView:
    """Return a round in which the honest updates are alike, and the attackers' own among them."""
    random = torch.Generator().manual_seed(5)
    d = sum(array.size for array in _WEIGHTS if array.dtype.kind == "f")
    rows = 1 + 0.5 * torch.randn(num_attackers + num_others, d, generator=random)
    own, others = rows[:num_attackers], rows[num_attackers:]

    def rehearse(uploads: torch.Tensor) -> Rehearsal:
        return Rehearsal(torch.cat([uploads, others]).mean(dim=0), torch.ones(len(uploads), dtype=torch.bool))

    return CohortView(
        own=own,
        own_ids=tuple(range(num_attackers)),
        clients_per_round=len(rows),
        global_parameters=torch.cat([torch.from_numpy(a.ravel()) for a in _WEIGHTS if a.dtype.kind == "f"]),
        round=2,
        seed=attack.seed,
        others=others if attack.knowledge == "all" else None,
        rehearse=rehearse if attack.knows_defense else None,
    )


class _Pairs:
    """A data set of which nothing is known but its length and its items."""

    def __init__(self, x: NDArray[Any], y: NDArray[Any]):
        self.pairs = [(x[i], int(y[i])) for i in range(len(y))]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: int) -> Any:
        return self.pairs[position]


class _Dictionaries(_Pairs):
    """The same, with items that are dictionaries."""

    def __getitem__(self, position: int) -> Any:
        return dict(zip(("img", "label"), super().__getitem__(position), strict=True))


def _fit_by_message(app: ClientApp, node: Context, config: dict[str, Any]) -> Fit:
    names = ("arrays", "config") if app._call is None else ("fitins.parameters", "fitins.config")
    reply = app(_instruction("train", names, config), node)
    assert not reply.has_error(), reply.error.reason
    arrays = next(iter(reply.content.array_records.values()))
    metrics: dict[str, Any] = {k: v for record in reply.content.metric_records.values() for k, v in record.items()}
    count = metrics.get("num-examples", metrics.get("num_examples"))
    assert isinstance(count, int)
    return [array.numpy() for array in arrays.values()], count, metrics


def _instruction(message_type: str, names: tuple[str, str], config: dict[str, Any]) -> Message:
    arrays = ArrayRecord({str(i): flower_array(npy_bytes(array)) for i, array in enumerate(_WEIGHTS)})
    return Message(
        RecordDict({names[0]: arrays, names[1]: ConfigRecord(config)}),
        dst_node_id=99,
        message_type=message_type,
    )
