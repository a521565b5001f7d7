"""Free riders: what they upload in which round, and that their memory never misses one."""

import pickle

import numpy as np
import pytest

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import AdamFreeRider, LazyWorker, numpy_client_app, state_folder
from flsec.client_apps._around import flower_context
from flsec.errors import ConfigError
from tests.client_apps.toys import CLIENT, Toy, arrays, context, message, same, toy_fn


def models(count):
    """Global models of successive rounds, each float array moving another way every time."""
    return [arrays(seed) for seed in range(count)]


def floats(parameters):
    return [array for array in parameters if array.dtype.kind == "f"]


def update(sent, received):
    return [s.astype(np.float64) - r.astype(np.float64) for s, r in zip(floats(sent), floats(received), strict=True)]


def assert_close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 if a.dtype == np.float16 else 4e-3)  # half precision among them


class Run:
    """One client over several rounds, wherever its state is kept."""

    def __init__(self, attack, kind, folder):
        self.attack, self.kind, self.folder = attack, kind, folder
        self.client, self.context = attack(Toy()), context()
        self.app = numpy_client_app(toy_fn, mods=[attack.mod])

    def __call__(self, round, received):
        sent = [array.copy() for array in received]
        if self.kind == "object":
            return self.client.fit(sent, {"server-round": round})[0]
        if self.kind == "folder":  # a new object in another process
            client = pickle.loads(pickle.dumps(self.attack))(Toy())
            with state_folder(self.folder):
                return client.fit(sent, {"server-round": round})[0]
        self.context = pickle.loads(pickle.dumps(self.context))  # it travels to the worker and back
        if self.kind == "context":
            with flower_context(self.context):
                return self.attack(Toy()).fit(sent, {"server-round": round})[0]
        asked = message("train", sent, {"server-round": round})
        [names] = asked.content.array_records.values()
        names = list(names)
        [record] = self.app(asked, self.context).content.array_records.values()
        return [record[name].numpy() for name in names]


@pytest.fixture(params=["object", "folder", "context", "mod"])
def run(request, tmp_path):
    return lambda attack: Run(attack, request.param, tmp_path / "states")


def test_every_round_but_the_first_goes_on_as_the_last_one_went(run):
    """A counter that is not advanced, or a memory that is not written, would resend for ever."""
    play, received = run(LazyWorker(mode="delta")), models(5)
    for round_, now in enumerate(received, start=1):
        sent = play(round_, now)
        expected = [np.zeros_like(w) for w in floats(now)] if round_ == 1 else update(now, received[round_ - 2])
        assert_close(update(sent, now), expected)
        if round_ > 1:
            assert max(np.abs(step).max() for step in update(sent, now)) > 0.5


def test_rounds_in_which_it_was_not_asked_are_counted(run):
    play, (first, second) = run(LazyWorker(mode="delta")), models(2)
    play(2, first)
    assert_close(update(play(6, second), second), [step / 4 for step in update(second, first)])


def test_it_remembers_rounds_in_which_it_behaved(run):
    adversaries = Adversaries(num_clients=5, ids=[CLIENT], first_round=3)
    play, received = run(LazyWorker(mode="delta", adversaries=adversaries)), models(3)
    for round_ in (1, 2):
        assert same(play(round_, received[round_ - 1]), Toy().fit(received[round_ - 1], {})[0])
    assert_close(update(play(3, received[2]), received[2]), update(received[2], received[1]))


def test_a_round_that_is_repeated_gives_the_same(run):
    """A resumed run asks again for a round that had already begun."""
    play, received = run(LazyWorker(mode="delta", std=0.1)), models(3)
    play(1, received[0])
    first = play(2, received[1])
    if isinstance(play, Run) and play.kind == "folder":  # other places hold the newest only, and the run's are files
        play(3, received[2])
        assert same(play(2, received[1]), first)


def test_clients_that_never_attack_keep_nothing(tmp_path):
    for mode, ids in (("delta", [1]), ("resend", [CLIENT]), ("noise", [CLIENT])):
        attack = LazyWorker(mode=mode, adversaries=Adversaries(num_clients=5, ids=ids))
        with state_folder(tmp_path / "states"):
            attack(Toy()).fit(arrays(), {"server-round": 1})
    assert not (tmp_path / "states").exists()


def test_resending_is_an_update_of_zero_in_every_round():
    client = LazyWorker()(Toy())
    for round_, now in enumerate(models(3), start=1):
        sent, num_examples, metrics = client.fit(now, {"server-round": round_})
        assert same(floats(sent), floats(now))
        assert num_examples == 12
        assert metrics  # what honest training reports


def test_noise_differs_between_clients_and_rounds_and_shrinks_where_told():
    def noise(client_id, round_, **settings):
        sent = LazyWorker(mode="noise", **settings)(Toy(client_id)).fit(arrays(), {"server-round": round_})[0]
        return update(sent, arrays())[1]  # the float64 one

    assert not np.array_equal(noise(1, 1), noise(2, 1))
    assert not np.array_equal(noise(1, 1), noise(1, 2))
    assert np.array_equal(noise(1, 1), noise(1, 1))
    assert not np.array_equal(noise(1, 1), noise(1, 1, seed=5))
    assert 1e-5 < np.abs(noise(1, 1)).mean() < 5e-3
    np.testing.assert_allclose(noise(1, 4, decay=2.0, std=1.0), noise(1, 4, std=1.0) / 16, rtol=1e-9)
    np.testing.assert_allclose(noise(1, 1, std=0.5), 500 * noise(1, 1), rtol=1e-6)


def test_refuses_other_modes():
    with pytest.raises(ConfigError, match="one of 'resend', 'noise', 'delta'"):
        LazyWorker(mode="sleep")


# --- with Adam's noise ------------------------------------------------------------------------------------------


def test_adams_noise_follows_the_steps_seen_so_far_wherever_they_are_kept(run):
    play, received = run(AdamFreeRider(scale=0.0)), models(4)
    for round_, now in enumerate(received, start=1):
        expected = [np.zeros_like(w) for w in floats(now)] if round_ == 1 else update(now, received[round_ - 2])
        assert_close(update(play(round_, now), now), expected)
    play = run(AdamFreeRider(beta_2=0.9))
    squares, by_hand = np.zeros_like(received[0][1]), []
    for round_, now in enumerate(received, start=1):
        noise = floats(play(round_, now))[1].astype(float) - floats(now)[1]
        if round_ == 1:
            continue
        step = update(now, received[round_ - 2])[1]
        squares = 0.9 * squares + 0.1 * step**2
        by_hand.append((noise - step) / np.sqrt(squares / (1 - 0.9 ** (round_ - 1))))
    drawn = np.concatenate([z.ravel() for z in by_hand])
    assert 0.4 < np.abs(drawn).mean() < 1.4  # of standard normal numbers 0.8
