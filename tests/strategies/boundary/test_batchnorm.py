"""Issue point B8: BatchNorm's statistics are state: no noise, no server optimizer, no negative variance."""

import numpy as np
import pytest
import torch
from flwr.server.strategy import FedAdam as ClassicFedAdam
from flwr.serverapp.strategy import FedAdam as MessageFedAdam

from flsec._contracts.server import Reply, npy_bytes
from flsec.errors import ConfigError
from flsec.strategies import (
    CRFL,
    RFA,
    Krum,
    Median,
    MultiKrum,
    NormClipping,
    RobustLearningRate,
    RobustStrategy,
    SparseFed,
    TrimmedMean,
    WeakDP,
)
from tests.support.boundary import both_apis, counts, fedavg, parameters, play, report, sends, server, why_kept

N = 10


class Network(torch.nn.Sequential):
    """A convolution with BatchNorm, as in every vision model; small activations, so that variances are small."""

    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(1, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 3)
        )


def network():
    torch.manual_seed(0)
    made = Network()
    with torch.no_grad():
        made[1].running_var.fill_(0.004)
        made[1].running_mean.fill_(0.05)
    return made


NAMES = list(network().state_dict())
MODEL = {name: value.detach().numpy().copy() for name, value in network().state_dict().items()}
STATE = ("1.running_mean", "1.running_var", "1.num_batches_tracked")
POSITIONS = [NAMES.index(name) for name in STATE]
START = int(MODEL[STATE[2]])


def answer(round, client_id, arrays):
    """Weights move a little, variances by up to a half, and every client has seen some batches more."""
    rng = np.random.default_rng([round, client_id])
    new = []
    for name, array in zip(NAMES, arrays, strict=True):
        if name == STATE[2]:
            new.append(array + 3 + client_id % 4)
        elif name == STATE[1]:
            new.append((0.004 * rng.uniform(0.5, 1.5, array.shape)).astype(array.dtype))
        elif name == STATE[0]:
            new.append((0.05 * rng.uniform(0.5, 1.5, array.shape)).astype(array.dtype))
        else:
            new.append((array + rng.normal(scale=0.02, size=array.shape)).astype(array.dtype))
    return [Reply(tuple(map(npy_bytes, new)))]


def fedadam(api):
    if api == "classic":
        return ClassicFedAdam(initial_parameters=parameters(MODEL), eta=0.1, tau=1e-3, **counts(api, N))
    return MessageFedAdam(eta=0.1, tau=1e-3, **counts(api, N))


DEFENSES = {
    "RobustStrategy": lambda api, **o: RobustStrategy(fedavg(api, N), **o),
    "FedAdam": lambda api, **o: RobustStrategy(fedadam(api), **o),
    "Median(FedAdam)": lambda api, **o: Median(fedadam(api), **o),
    "Krum": lambda api, **o: Krum(fedavg(api, N), num_byzantine=2, **o),
    "MultiKrum(FedAdam)": lambda api, **o: MultiKrum(fedadam(api), num_byzantine=2, **o),
    "WeakDP": lambda api, **o: WeakDP(fedavg(api, N), max_norm=3.0, std=0.01, **o),
    "CRFL": lambda api, **o: CRFL(fedavg(api, N), max_norm=15.0, std=0.01, **o),
    "NormClipping": lambda api, **o: NormClipping(fedavg(api, N), max_norm=0.1, **o),
    "NormClipping(FedAdam)": lambda api, **o: NormClipping(fedadam(api), max_norm=0.1, **o),
    "RobustLearningRate": lambda api, **o: RobustLearningRate(fedavg(api, N), threshold=6, **o),
    "SparseFed": lambda api, **o: SparseFed(fedavg(api, N), k=20, max_norm=3.0, **o),
    "TrimmedMean": lambda api, **o: TrimmedMean(fedavg(api, N), num_trimmed=2, **o),
    "RFA": lambda api, **o: RFA(fedavg(api, N), **o),
    "WeakDP(Median)": lambda api, **o: WeakDP(Median(fedavg(api, N), **o), max_norm=3.0, std=0.01, **o),
}
every_defense = pytest.mark.parametrize("name", DEFENSES)


def settings(api):
    """In the classic API arrays have no names."""
    return {"state_arrays": POSITIONS} if api == "classic" else {}


def state(played):
    arrays = dict(zip(NAMES, played.arrays, strict=True))
    return tuple(arrays[name] for name in STATE)


def sent(round, which, clients=range(1, N + 1)):
    """What the clients send of one of the statistics; they do not depend on the model."""
    place = NAMES.index(STATE[which])
    return np.stack([answer(round, i, list(MODEL.values()))[0].arrays[place] for i in clients])


def assert_statistics(played, round, clients=range(1, N + 1)):
    mean, variance, _ = state(played)
    assert (variance >= 0).all(), f"a negative variance: {variance}"
    for which, array in ((0, mean), (1, variance)):
        values = sent(round, which, clients)
        assert (array >= values.min(axis=0) - 1e-7).all(), f"{STATE[which]} {array} below {values.min(axis=0)}"
        assert (array <= values.max(axis=0) + 1e-7).all(), f"{STATE[which]} {array} above {values.max(axis=0)}"


def assert_usable(played):
    """The model evaluates to numbers."""
    made = network().eval()
    made.load_state_dict({name: torch.as_tensor(a) for name, a in zip(NAMES, played.arrays, strict=True)})
    assert torch.isfinite(made(torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.1)).all()


@both_apis
@every_defense
def test_statistics_stay_in_the_clients_range(api, name):
    played = server(api, DEFENSES[name](api, **settings(api)), N, MODEL)
    for round in range(1, 5):
        before = int(state(played)[2])
        played.play([round], answer)
        assert why_kept(played) is None
        assert_statistics(played, round)
        assert before + 3 <= int(state(played)[2]) <= before + 6, "the counter is out of the honest range"
        assert_usable(played)
        assert [a.dtype for a in played.arrays] == [a.dtype for a in MODEL.values()]


@both_apis
@every_defense
def test_statistics_are_not_in_the_matrix(api, name):
    """A rule sees weights only: d is the number of parameters."""
    widths = []

    class Looks(RobustStrategy):
        def before_aggregation(self, cohort):
            widths.append(cohort.updates.shape[1])
            return cohort

    strategy = Looks(DEFENSES[name](api, **settings(api)), **settings(api))
    play(api, strategy, N, [1], answer, MODEL)
    assert widths == [sum(parameter.numel() for parameter in network().parameters())]


@both_apis
def test_statistics_of_few_cannot_leave_the_honest_range(api):
    """Two of ten send honest weights and absurd statistics."""

    def absurd(reply):
        arrays = reply.arrays
        arrays[POSITIONS[0]] = arrays[POSITIONS[0]] * 0 + 1e6
        arrays[POSITIONS[1]] = arrays[POSITIONS[1]] * 0 - 5
        arrays[POSITIONS[2]] = np.array(2**40)
        return Reply(tuple(map(npy_bytes, arrays)))

    hostile = (3, 8)
    others = [i for i in range(1, N + 1) if i not in hostile]
    for name in ("Median(FedAdam)", "Krum", "MultiKrum(FedAdam)", "TrimmedMean", "WeakDP(Median)"):
        strategy = DEFENSES[name](api, **settings(api))
        played = play(api, strategy, N, [1], sends(dict.fromkeys(hostile, absurd), answer), MODEL)
        assert why_kept(played) is None
        assert_statistics(played, 1, others)
        assert START + 3 <= int(state(played)[2]) <= START + 6, name


@both_apis
def test_statistics_cost_nobody_its_place(api):
    """A client whose data look different has other statistics: a rule of distances does not see them."""

    def other_data(reply):
        arrays = reply.arrays
        arrays[POSITIONS[0]] = arrays[POSITIONS[0]] + 100
        return Reply(tuple(map(npy_bytes, arrays)))

    plain = play(api, DEFENSES["MultiKrum(FedAdam)"](api, **settings(api)), N, [1], answer, MODEL)
    strategy = DEFENSES["MultiKrum(FedAdam)"](api, **settings(api))
    played = play(api, strategy, N, [1], sends({4: other_data}, answer), MODEL)
    assert report(played).verdicts[0].kept == report(plain).verdicts[0].kept


# --- how they are told -------------------------------------------------------------------------------------------

WAYS = {
    "positions": lambda: POSITIONS,
    "names": lambda: list(STATE),
    "a torch module": network,
}


@both_apis
@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_name_them_gives_the_same_model(api, way):
    if (api, way) == ("classic", "names"):
        pytest.skip("the classic API sends no names")
    played = play(api, Median(fedadam(api), state_arrays=WAYS[way]()), N, [1, 2], answer, MODEL)
    other = play(api, Median(fedadam(api), state_arrays=POSITIONS), N, [1, 2], answer, MODEL)
    for a, b in zip(played.arrays, other.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    assert_statistics(played, 2)


def test_names_in_the_classic_api_are_refused_because_it_has_none():
    with pytest.raises(ConfigError, match="state_arrays"):
        play("classic", Median(fedavg("classic", N), state_arrays=list(STATE)), N, [1], answer, MODEL)


def test_torchs_pattern_is_known_in_the_classic_api():
    """Two equal vectors of floats before a count of no dimensions: what torch writes for BatchNorm."""
    for name in ("Median(FedAdam)", "WeakDP", "NormClipping(FedAdam)"):
        told = play("classic", DEFENSES[name]("classic", state_arrays=POSITIONS), N, [1, 2], answer, MODEL)
        untold = play("classic", DEFENSES[name]("classic"), N, [1, 2], answer, MODEL)
        for a, b in zip(told.arrays, untold.arrays, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize(
    "model",
    [
        {"a": np.zeros(4, np.float32), "b": np.zeros(5, np.float32), "n": np.array(1)},  # of different sizes
        {"a": np.zeros((2, 2), np.float32), "b": np.zeros((2, 2), np.float32), "n": np.array(1)},  # matrices
        {"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32), "n": np.zeros(1, np.int64)},  # a vector
        {"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32), "c": np.zeros(4, np.float32)},  # no count
    ],
)
def test_what_only_looks_like_batchnorm_stays_in_the_matrix(model):
    widths = []

    class Looks(RobustStrategy):
        def before_aggregation(self, cohort):
            widths.append(cohort.updates.shape[1])
            return cohort

    def trained(round, client_id, arrays):
        new = [a + np.float32(0.1 * client_id) if a.dtype.kind == "f" else a for a in arrays]
        return [Reply(tuple(map(npy_bytes, new)))]

    play("classic", Looks(fedavg("classic", N)), N, [1], trained, model)
    assert widths == [sum(a.size for a in model.values() if a.dtype.kind == "f")]


def test_whoever_says_that_there_is_no_state_is_believed():
    """An empty list switches the recognition off."""
    widths = []

    class Looks(RobustStrategy):
        def before_aggregation(self, cohort):
            widths.append(cohort.updates.shape[1])
            return cohort

    play("classic", Looks(fedavg("classic", N), state_arrays=[]), N, [1], answer, MODEL)
    assert widths == [sum(a.size for a in MODEL.values() if a.dtype.kind == "f")]


def test_batchnorm_is_known_by_name_wherever_it_is_in_the_message_api():
    model = {
        "module.encoder.bn.running_var": np.full(2, 0.1, np.float32),
        "module.encoder.weight": np.zeros((2, 2), np.float32),
        "module.encoder.bn.num_batches_tracked": np.array(5),
        "module.encoder.bn.running_mean": np.zeros(2, np.float32),
        "running_mean": np.zeros(3, np.float32),
    }

    def trained(round, client_id, arrays):
        rng = np.random.default_rng(client_id)
        new = [
            np.abs(a + 0.1 * rng.standard_normal(a.shape)).astype(a.dtype) if a.dtype.kind == "f" else a + 1
            for a in arrays
        ]
        return [Reply(tuple(map(npy_bytes, new)))]

    played = play("Message", WeakDP(fedavg("Message", N), max_norm=3.0, std=10.0), N, [1], trained, model)
    new = dict(zip(model, played.arrays, strict=True))
    assert np.abs(new["module.encoder.weight"]).max() > 1, "the noise is this large"
    for name in ("module.encoder.bn.running_var", "module.encoder.bn.running_mean", "running_mean"):
        assert (new[name] >= 0).all(), name
        assert (new[name] < 1).all(), name


@pytest.mark.parametrize("value", [[99], [-99], ["no_such_array"], "running_var", 3.5, [1.5]])
def test_state_arrays_that_do_not_exist_are_refused(value):
    api = "Message"
    with pytest.raises(ConfigError, match="state_arrays"):
        play(api, Median(fedavg(api, N), state_arrays=value), N, [1], answer, MODEL)


def test_a_module_of_another_model_is_refused():
    with pytest.raises(ConfigError, match="state_arrays"):
        play("classic", Median(fedavg("classic", N), state_arrays=torch.nn.Linear(3, 3)), N, [1], answer, MODEL)


@both_apis
def test_statistics_that_are_not_finite_are_quarantined(api):
    def spoil(reply):
        arrays = reply.arrays
        arrays[POSITIONS[1]] = arrays[POSITIONS[1]] * np.nan
        return Reply(tuple(map(npy_bytes, arrays)))

    played = play(api, Median(fedavg(api, N), **settings(api)), N, [1], sends({6: spoil}, answer), MODEL)
    assert [entry.client_id for entry in report(played).quarantined] == [6]


@both_apis
def test_a_model_without_batchnorm_is_as_it_was(api):
    """Naming nothing changes nothing."""
    model = {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}

    def trained(round, client_id, arrays):
        rng = np.random.default_rng([round, client_id])
        new = [(a + 0.1 * rng.standard_normal(a.shape)).astype(a.dtype) for a in arrays]
        return [Reply(tuple(map(npy_bytes, new)))]

    plain = play(api, Median(fedavg(api, N)), N, [1, 2], trained, model)
    rows = [trained(1, i, list(model.values()))[0].arrays[0] for i in range(1, N + 1)]
    first = play(api, Median(fedavg(api, N)), N, [1], trained, model)
    np.testing.assert_allclose(first.arrays[0], np.median(rows, axis=0), rtol=1e-5)
    assert plain.strategy.last_report.round == 2
