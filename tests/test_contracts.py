"""Everything that is registered or exported runs through the contracts; nothing is listed here by hand."""

import inspect
import pickle
from dataclasses import replace
from functools import partial, wraps

import numpy as np
import pytest
import torch

import flsec.aggregation
from flsec._contracts.battery import quiet
from flsec._contracts.network import TRAINING
from flsec._contracts.server import MODEL, ClassicServer, MessageServer, flower_strategy, honest, identify, npy_bytes
from flsec.aggregation.siren import ALARM
from flsec.client_apps import ATTACKS
from flsec.errors import ConfigError
from flsec.models import MODELS, build_model
from flsec.parameters import parameters_of
from flsec.simulations.schema import StrategyEntry
from flsec.simulations.server_strategies import STRATEGIES
from flsec.simulations.signatures import parameters_model
from flsec.strategies import DEFENSES
from flsec.tasks import TASKS, CausalLM, NextToken
from flsec.testing import (
    EXAMPLE_PARAMETERS,
    check_attack,
    check_model,
    check_rule,
    check_server_optimizer,
    check_strategy,
    check_task,
    example,
)
from tests.support.example_settings import SETTINGS as EXAMPLE_SETTINGS

N, D = 23, 37

# What a rule does not promise, with the reason. A new rule is held to everything.
EXEMPTIONS = {
    "mean": {"num_byzantine": 0},  # no defense: the baseline
    "robust_learning_rate": {"num_byzantine": 0, "shift_equivariant": False},  # votes on signs, then takes the mean
    "centered_clipping": {"shift_equivariant": False, "scale_equivariant": False},  # has a centre and a radius
    "comparative_gradient_elimination": {"shift_equivariant": False},  # the length of an update counts
    "weak_dp": {"shift_equivariant": False, "scale_equivariant": False},  # has a bound, and adds noise
    "median_of_means": {"order_invariant": False},  # rows in a row share a group
    "slsgd": {"shift_equivariant": False},  # goes a part of the way
    "flame": {"shift_equivariant": False},  # judges directions
    "align_ins": {"shift_equivariant": False},  # judges directions and signs
    "lasa": {"shift_equivariant": False},  # judges norms and signs, and clips
    "rflbat": {"shift_equivariant": False, "num_byzantine": 0},  # judges directions; opposite ones hide each other
    "fltrust": {
        "shift_equivariant": False,
        "scale_equivariant": False,
    },  # directions count, the length is u_0's
    "clipped_clustering": {"shift_equivariant": False},  # judges directions
    "sign_guard": {"shift_equivariant": False},  # judges norms and signs
    "zeno": {"shift_equivariant": False},  # the length of an update counts
    "removal_rejection": {"num_byzantine": 0},  # those who cancel each other out hide each other, see its docstring
}

# All of FedInv's dummies lie on one line here, so that scores are tied in pairs and trimming decides by the last digit.
SETTINGS = {**EXAMPLE_SETTINGS, "fedinv": {**EXAMPLE_SETTINGS["fedinv"], "num_byzantine": 0}}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny matrices: starting threads costs more than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def updates(n=N, seed=0, dtype=torch.float64):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def bound(function):
    """The function of (n, d) updates, with example parameters."""

    @wraps(function)
    def rule(u):
        return function(u, **example(function, u))

    return rule


def of_updates():
    exported = {name: getattr(flsec.aggregation, name) for name in flsec.aggregation.__all__}
    return {
        name: function
        for name, function in exported.items()
        if inspect.isfunction(function) and next(iter(inspect.signature(function).parameters)) == "updates"
    }


FUNCTIONS = {name: (function, bound(function)(updates())) for name, function in of_updates().items()}
RULES = {name: function for name, (function, result) in FUNCTIONS.items() if result.shape == (D,)}
SELECTIONS = {
    name: function
    for name, (function, result) in FUNCTIONS.items()
    if result.ndim == 1 and not result.is_floating_point()
}
ROWWISE = {
    name: function
    for name, (function, result) in FUNCTIONS.items()
    if len(result) == N and name not in RULES and name not in SELECTIONS
}
GROUPINGS = {
    name: function for name, (function, result) in FUNCTIONS.items() if result.ndim == 2 and 1 < len(result) < N
}


def fewest(rule):
    for n in range(1, N):
        try:
            rule(updates(n))
        except ConfigError:
            continue
        return n
    raise AssertionError(f"no n below {N} is enough")


def named(members):
    return pytest.mark.parametrize("name", sorted(members))


def test_every_function_of_updates_is_covered_below():
    assert {*RULES, *SELECTIONS, *ROWWISE, *GROUPINGS} == set(FUNCTIONS)
    assert set(EXEMPTIONS) <= set(RULES)
    assert len(RULES) >= 8


EXPORTED = {name: getattr(flsec.aggregation, name) for name in flsec.aggregation.__all__}


@named(name for name, function in EXPORTED.items() if inspect.isfunction(function))
def test_docstring_has_an_example_and_says_what_goes_in_and_comes_out(name):
    text = inspect.getdoc(EXPORTED[name])
    wanted = {"Args:", "Returns:", "Raises:", "Example:", ">>> ", "Source:"}
    if name == "fetchsgd_init":  # nothing of it can be wrong
        wanted.remove("Raises:")
    assert not [part for part in wanted if part not in text]


@named(RULES)
def test_rule(name):
    rule = bound(RULES[name])
    takes = parameters_of(RULES[name])
    byzantine = 3 if {"num_byzantine", "num_trimmed"} & set(takes) else 4
    settings = {"num_byzantine": byzantine, **EXEMPTIONS.get(name, {})}
    check_rule(rule, min_clients=fewest(rule), **settings)


@named(ROWWISE)
def test_value_of_each_row_follows_the_order_of_rows(name):
    function, u = bound(ROWWISE[name]), updates()
    before, order = u.clone(), torch.randperm(N, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(function(u[order]), function(u)[order])
    torch.testing.assert_close(function(u.float()).double(), function(u), rtol=1e-5, atol=1e-5, check_dtype=False)
    assert torch.equal(u, before)


@named(SELECTIONS)
def test_selection_follows_the_order_of_rows(name):
    function, u = bound(SELECTIONS[name]), updates()
    before, order = u.clone(), torch.randperm(N, generator=torch.Generator().manual_seed(1))
    chosen = function(u)
    assert set(order[function(u[order])].tolist()) == set(chosen.tolist())
    assert len(set(chosen.tolist())) == len(chosen)
    assert torch.equal(u, before)


@named(GROUPINGS)
def test_grouped_rows_follow_shift_and_scale(name):
    function, u = bound(GROUPINGS[name]), updates()
    before, grouped = u.clone(), function(u)
    torch.testing.assert_close(function(3 * u + 7), 3 * grouped + 7)
    torch.testing.assert_close(function(u.float()).double(), grouped, rtol=1e-5, atol=1e-5)
    assert torch.equal(u, before)


@named({**SELECTIONS, **ROWWISE, **GROUPINGS})
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_hostile_rows_never_raise_and_are_never_selected(name, value):
    for dtype in (torch.float32, torch.float64):
        u = updates(dtype=dtype)
        u[[2, 5]] = value
        result = bound(FUNCTIONS[name][0])(u)
        if name in SELECTIONS:
            assert not {2, 5} & set(result.tolist())


@named(DEFENSES.names())
def test_strategy(name):
    defense = DEFENSES.get(name)
    parameters = example(defense, flower_strategy("classic", "FedAvg", 2), **SETTINGS.get(name, {}))
    check_strategy(partial(defense, **parameters))


def always_new(round, client_id, arrays):
    """Half of the clients are honest; half send the opposite and raise SIREN's alarm, so that verdicts pile up."""
    reply = honest(round, client_id, arrays)[0]
    hostile = client_id % 2
    metrics = {**reply.metrics, ALARM: hostile}
    if not hostile:
        return [replace(reply, metrics=metrics)]
    flipped = [(2 * a - b).astype(a.dtype) for a, b in zip(arrays, reply.arrays, strict=True)]
    return [replace(reply, tensors=tuple(npy_bytes(array) for array in flipped), metrics=metrics)]


def remembering(name, max_clients):
    """Return a defense with example parameters, told how many clients to remember if it asks."""
    identify()
    defense, inner = DEFENSES.get(name), flower_strategy("Message", "FedAvg", 1)
    memory = {"max_clients": max_clients} if "max_clients" in parameters_of(defense) else {}
    memory["patience"] = None  # strangers have no sample with DiverseFL, for one
    if name == "three_sigma":
        memory["score"] = "foolsgold"  # the score that remembers
    return defense(inner, **example(defense, inner, **memory, **SETTINGS.get(name, {})))


def sizes_among_strangers(strategy, rounds):
    """Play rounds in which nobody was seen before; return the bytes of state_dict() and of the whole strategy."""
    server, width = MessageServer(strategy, ()), max(8, strategy.minimum_clients)
    with quiet("flwr", "flsec"):
        for number in rounds:
            server.clients = range(1 + number * width, 1 + (number + 1) * width)
            server.fit(number, always_new)
    return np.array([len(pickle.dumps(strategy.state_dict())), len(pickle.dumps(strategy))])


def check_memory(name, rounds):
    """Rounds of at least 8 new clients each, of which 20 are to be remembered."""
    strategy = remembering(name, max_clients=20)
    early = sizes_among_strangers(strategy, range(1, 11))
    late = sizes_among_strangers(strategy, range(11, rounds + 1))
    assert (late <= 1.1 * early + 500).all(), f"bytes of (state_dict, all): {early} after 10 rounds, {late} at the end"


@named(DEFENSES.names())
def test_memory_stays_bounded_however_many_clients_come_and_go(name):
    check_memory(name, rounds=80 if DEFENSES.get(name).state_names else 30)


@pytest.mark.slow
@named(DEFENSES.names())
def test_memory_stays_bounded_for_500_rounds(name):
    """Sees also what grows by a number a round."""
    check_memory(name, rounds=500)


@named(name for name in DEFENSES.names() if "max_clients" in parameters_of(DEFENSES.get(name)))
def test_the_test_of_memory_sees_one_without_a_bound(name):
    strategy = remembering(name, max_clients=None)
    early, late = (sizes_among_strangers(strategy, rounds) for rounds in (range(1, 11), range(11, 81)))
    assert (late > 1.1 * early + 1000).all()


def comparable():
    """Defenses with a function of the same name, but not those that need what a server computes on data of its own."""
    own = {"loss", "server_update", "guiding_updates"}
    return {name for name in set(DEFENSES.names()) & set(FUNCTIONS) if not own & set(parameters_of(FUNCTIONS[name][0]))}


@named(comparable())
def test_strategy_computes_the_function_of_the_same_name(name):
    """Around FedAvg, the new model is the old one plus what the pure function says, outliers included."""
    identify()
    defense, function = DEFENSES.get(name), FUNCTIONS[name][0]
    strategy = defense(inner := flower_strategy("classic", "FedAvg", N), **example(defense, inner))
    rows = []

    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        if client_id % 8 == 0:  # 2 of 23
            reply = replace(reply, tensors=(npy_bytes(arrays[0] + np.float32(client_id)), *reply.tensors[1:]))
        rows.append(flat(reply.arrays) - flat(arrays))
        return [reply]

    server = ClassicServer(strategy, range(1, N + 1)).play([1], answer)
    given = {key: getattr(strategy, key, None) for key in parameters_of(function) if key not in ("updates", "weights")}
    given = {key: value for key, value in given.items() if value is not None and key != "center"}  # zero at first
    matrix = torch.from_numpy(np.stack(rows))
    floats = [array for array in MODEL.values() if array.dtype.kind == "f"]
    told = {"model": torch.from_numpy(flat(floats)), "layers": [array.size for array in floats]}  # by the round
    asked = {name for name, (_, parameter) in parameters_of(function).items() if parameter.default is parameter.empty}
    given.update({name: value for name, value in told.items() if name in asked})
    expected = function(matrix, **example(function, matrix, **given))
    expected = expected.mean(dim=0) if expected.ndim == 2 else expected
    moved = flat(server.arrays) - flat(MODEL.values())
    np.testing.assert_allclose(moved, expected.numpy(), rtol=1e-5, atol=1e-5)


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays if array.dtype.kind == "f"]).astype(np.float64)


OPTIMIZERS = [name for name in STRATEGIES.names() if isinstance(STRATEGIES.get(name), type)]


@named(OPTIMIZERS)
def test_server_optimizer_as_a_wrapper(name):
    """In both APIs it withstands what a defense withstands."""
    optimizer = STRATEGIES.get(name)
    parameters = example(optimizer, flower_strategy("classic", "FedAvg", 2), training=TRAINING)
    check_strategy(partial(optimizer, **parameters))


@named(STRATEGIES.names())
def test_server_optimizer(name):
    fields = parameters_model(STRATEGIES.get(name), StrategyEntry.supplied).model_fields
    needed = [key for key, info in fields.items() if info.is_required()]
    check_server_optimizer(name, **{key: EXAMPLE_PARAMETERS[key] for key in needed})


@named(ATTACKS.names())
def test_attack(name):
    attack = ATTACKS.get(name)
    check_attack(attack(**example(attack)))


# --- models and tasks -------------------------------------------------------------------------------------------

# What a model needs to be checked in seconds: smaller networks, and images that are large enough for its poolings.
MODEL_SETTINGS = {
    "resnet9": {"channels": 8},
    "resnet101_ln": {"blocks": (1, 1, 1, 1), "channels": 4},
    "siren_cifar_cnn": {"input_shape": (3, 18, 19)},
    "softmax": {"starts_constant": True},  # at zero, unless told otherwise
    "torchvision_model": {"architecture": "squeezenet1_1", "input_shape": (3, 32, 33)},
    "vgg11": {"channels": 16, "hidden": 16, "input_shape": (3, 32, 33)},
}

# Tasks with the settings that change what they do, and those whose outputs come from a network of their own.
TASKS_CHECKED = {
    "causal_lm": [CausalLM(), CausalLM(answers=(3, 5, 8))],
    "next_token": [NextToken(), NextToken(positions="all")],
}
NETWORKS = {"gan": "mlp_gan", "nas": "darts_cell"}


@named(MODELS.names())
def test_model(name):
    check_model(name, **MODEL_SETTINGS.get(name, {}))


@named(TASKS.names())
def test_task(name):
    network = build_model(NETWORKS[name], (1, 4, 4), 12, seed=0) if name in NETWORKS else None
    for task in TASKS_CHECKED.get(name, [TASKS.get(name)()]):
        check_task(task, model=network)
