import numpy as np
import pytest
from flwr.client import NumPyClient

from flsec.client_apps import NoisyClient, noisy_client, numpy_client_app
from flsec.client_apps.client_state import state_folder
from flsec.errors import ConfigError
from tests.client_apps import toys


class Client(NumPyClient):
    trainset = toys.data()

    def __init__(self, client_id=2):
        self.client_id = client_id

    def fit(self, parameters, config):
        parameters[0][:] = 9.0  # what a client does with its parameters is its own affair
        return [a + 1 if a.dtype.kind == "f" else a for a in toys.arrays()], 12, {"loss": 0.5}


def upload(client_id=2, round=3, seed=0, **config):
    one = NoisyClient(std=0.1, seed=seed)(Client(client_id))
    return one.fit(toys.arrays(), {"server-round": round, **config})


def test_noise_is_on_top_of_what_was_trained():
    arrays, num_examples, metrics = upload()
    assert (num_examples, metrics) == (12, {"loss": 0.5})
    for sent, trained in zip(arrays, toys.arrays(), strict=True):
        assert (sent.shape, sent.dtype) == (trained.shape, trained.dtype)
        if trained.dtype.kind == "f":
            assert 0 < np.abs(sent - (trained + 1)).max() < 1
        else:
            assert np.array_equal(sent, trained)
    quiet = upload(**{"noisy-median-std": 0.0})[0]
    assert np.array_equal(quiet[1], toys.arrays()[1] + 1)


def test_statistics_are_no_weights():
    class Normalised(Client):
        def fit(self, parameters, config):
            return [*map(np.ones, (4, 3, 3, 3, 3)), np.array(7)], 12, {}

    uploaded = NoisyClient(std=5.0)(Normalised()).fit(toys.arrays(), {"server-round": 3})[0]
    assert [bool((array != 1).any()) for array in uploaded] == [True, True, True, False, False, True]
    assert uploaded[5] == 7


def test_noise_depends_on_seed_round_and_client_alone():
    first = upload()[0]
    np.random.seed(5)
    assert toys.same(upload()[0], first)
    for other in (upload(client_id=3), upload(round=4), upload(seed=1)):
        assert not np.array_equal(other[0][0], first[0])


def test_what_the_server_sends_comes_first(tmp_path):
    loud = upload(**{"noisy-median-std": 100.0})[0]
    assert np.abs(loud[0] - (toys.arrays()[0] + 1)).max() > 10
    one = NoisyClient()(Client())
    with pytest.raises(ConfigError, match=r"NoisyClient needs std.*noisy-median-std"):
        one.fit(toys.arrays(), {"server-round": 1})
    with state_folder(tmp_path):
        one.fit(toys.arrays(), {"server-round": 1, "noisy-median-std": 0.1})


def test_a_class_is_decorated_and_a_mod_does_the_same():
    assert noisy_client is NoisyClient
    decorated = noisy_client(std=0.1)(Client)
    expected = upload()[0]
    assert toys.same(decorated(2).fit(toys.arrays(), {"server-round": 3})[0], expected)
    app = numpy_client_app(lambda context: Client(), mods=[NoisyClient(std=0.1).mod])
    assert toys.same(toys.train(app, toys.arrays(), api="message", client_id=2)[0], expected)


def test_an_unknown_client_would_draw_what_all_others_draw():
    with pytest.raises(ConfigError, match="client_id"):
        NoisyClient(std=0.1)(Client(client_id=None)).fit(toys.arrays(), {"server-round": 1})


def test_a_bad_deviation_is_refused():
    with pytest.raises(ConfigError, match="std"):
        NoisyClient(std=-1.0)
    with pytest.raises(ConfigError, match="std"):
        upload(**{"noisy-median-std": float("inf")})
