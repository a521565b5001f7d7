"""One attack, every way to put it on a client: the same upload, and the one that the formulas say."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp

from flsec.attacks import (
    FeatureTrigger,
    Trigger,
    badnets_indices,
    flip_classes,
    flip_labels,
    gaussian_attack,
    model_replacement,
    projected_gradient,
    random_attack,
    sign_flipping,
    wrong_labels,
    zero_attack,
)
from flsec.client_apps import (
    AdaptiveTopK,
    Attack,
    BadNets,
    ClassFlipping,
    GaussianAttack,
    LabelFlipping,
    ModelReplacement,
    Poison,
    ProjectedGradient,
    RandomAttack,
    SignFlipping,
    ZeroAttack,
    numpy_client_app,
    poisoned,
)
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.randomness import generator, numpy_generator
from flsec.training import set_weights
from tests.client_apps.toys import (
    CLIENT,
    ROUND,
    Decorated,
    Toy,
    ToyNetwork,
    arrays,
    context,
    data,
    message,
    message_app,
    same,
    step,
    toy_fn,
    train,
)

# ---- the attacks, and what each uploads by the pure functions alone


def _rng(purpose, seed=0, round=ROUND):
    return numpy_generator(seed, round, CLIENT, purpose)


def _honest(w, labels=lambda y: y):
    x, y = data()
    return step(w, x, labels(y))


def _badnets(w, trigger, target, fraction, seed):
    x, y = data()
    rows = badnets_indices(len(y), fraction, _rng("bad_nets", seed))
    x[rows], y[rows] = trigger.apply(x[rows]), target
    return step(w, x, y)


COLLUSION = {
    "auxiliary_data": tuple(map(torch.from_numpy, data())),
    "model_factory": ToyNetwork,
    "learning_rate": 0.1,
    "seed": 7,
}


def _colluding(w, coordinates=None):
    x, y = COLLUSION["auxiliary_data"]
    random = generator(7, purpose="auxiliary set")
    chosen = torch.randperm(12, generator=random)
    wanted = wrong_labels(y[chosen], 5, random)
    set_weights(model := ToyNetwork(), w)
    same_for_all = generator(7, ROUND, purpose="projected gradient")
    settings = {"max_norm": 5.0, "learning_rate": 0.1, "generator": same_for_all, "coordinates": coordinates}
    uploaded = projected_gradient(model, x[chosen], wanted, **settings)
    return [a if a.dtype.kind == "f" else own for a, own in zip(uploaded, _honest(w), strict=True)]  # counters go on


CASES = {
    "zero": (ZeroAttack(), lambda w: zero_attack(w, _honest(w))),
    "random": (
        RandomAttack(scale=0.5, seed=4),
        lambda w: random_attack(w, _honest(w), scale=0.5, generator=_rng("random_attack", 4)),
    ),
    "random gaussian": (
        RandomAttack(distribution="gaussian"),
        lambda w: random_attack(w, _honest(w), distribution="gaussian", generator=_rng("random_attack")),
    ),
    "sign": (SignFlipping(scale=4.0), lambda w: sign_flipping(w, _honest(w), scale=4.0)),
    "gaussian": (
        GaussianAttack(std=0.2, seed=9),
        lambda w: gaussian_attack(w, _honest(w), std=0.2, generator=_rng("gaussian_attack", 9)),
    ),
    "labels": (
        LabelFlipping(pairs=[(3, 4), (4, 3), (1, 0)]),
        lambda w: _honest(w, lambda y: flip_labels(y, [(3, 4), (4, 3), (1, 0)])),
    ),
    "label": (LabelFlipping(source=3, target=0), lambda w: _honest(w, lambda y: np.where(y == 3, 0, y))),
    "classes": (
        ClassFlipping(num_classes=5, mode="next"),
        lambda w: _honest(w, lambda y: flip_classes(y, 5, "next")),
    ),
    "badnets": (
        BadNets(target=4, fraction=0.4, seed=5, margin=0, value=0.25),
        lambda w: _badnets(w, Trigger(margin=0, value=0.25), 4, 0.4, 5),
    ),
    "badnets channel": (
        BadNets(target=4, fraction=0.4, value=[0.75]),
        lambda w: _badnets(w, Trigger(value=[0.75]), 4, 0.4, 0),
    ),
    "badnets features": (
        BadNets(target=1, fraction=1.0, features=[0, 5], value=2.0),
        lambda w: _badnets(w, FeatureTrigger(features=[0, 5], value=2.0), 1, 1.0, 0),
    ),
    "replacement": (ModelReplacement(scale=10.0), lambda w: model_replacement(w, _honest(w), boost=10.0)),
    "collusion": (ProjectedGradient(**COLLUSION), _colluding),
    "collusion, top-k": (
        AdaptiveTopK(**COLLUSION, k=2, coordinates=lambda round: torch.tensor([round, 7])),
        lambda w: _colluding(w, torch.tensor([ROUND, 7])),
    ),
}


def _class(attack):
    return attack(type("Mine", (Toy,), {}))


def _poisoned_fn(context):
    client = Toy()
    client.trainset = poisoned(client.trainset)
    return client.to_client()


FORMS = {
    "class": lambda a: ("classic", ClientApp(lambda context: _class(a)().to_client())),
    "instance": lambda a: ("classic", ClientApp(lambda context: a(Toy()).to_client())),
    "to_client": lambda a: ("classic", ClientApp(lambda context: a(Toy().to_client()))),
    "client_fn": lambda a: ("classic", ClientApp(a(toy_fn))),
    "mod": lambda a: ("classic", ClientApp(_poisoned_fn, mods=[a.mod])),
    "class, Message API": lambda a: ("message", numpy_client_app(lambda context: _class(a)())),
    "instance, Message API": lambda a: ("message", numpy_client_app(lambda context: a(Toy()))),
    "to_client, Message API": lambda a: ("message", numpy_client_app(lambda context: a(Toy().to_client()))),
    "client_fn, Message API": lambda a: ("message", numpy_client_app(a(toy_fn))),
    "mod, Message API": lambda a: ("message", numpy_client_app(toy_fn, mods=[a.mod])),
    "mod of a function": lambda a: ("message", message_app([a.mod])),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_every_form_uploads_what_the_formulas_say(case, form):
    attack, expected = CASES[case]
    api, app = FORMS[form](attack)
    sent = arrays()
    uploaded, report = train(app, sent, api=api)
    assert same(uploaded, expected(arrays()))
    assert not same(uploaded, _honest(arrays()))
    assert report["num-examples"] == 12
    assert same(sent, arrays())


@pytest.mark.parametrize("case", CASES)
def test_a_client_that_is_called_directly_uploads_the_same(case):
    attack, expected = CASES[case]
    for client in (_class(attack)(), attack(Toy()), attack(Toy().to_client()).numpy_client):
        assert same(client.fit(arrays(), {"server-round": ROUND})[0], expected(arrays()))


def test_random_numbers_differ_between_rounds_clients_and_seeds():
    attack = GaussianAttack()
    uploads = [
        train(numpy_client_app(toy_fn, mods=[a.mod]), arrays(), api="message", round=r, client_id=c)[0][0].tobytes()
        for a, r, c in [(attack, 1, 0), (attack, 2, 0), (attack, 1, 1), (GaussianAttack(seed=1), 1, 0)]
    ]
    assert len(set(uploads)) == 4


# ---- attacks of one's own


class Loud(Attack):
    """Poisons the data and the upload."""

    def poison(self, num_examples, context):
        return Poison(inputs=lambda x: x + 1, chosen=np.arange(num_examples) < context.round)

    def poison_update(self, global_, local, context):
        return [g - w if w.dtype.kind == "f" else w for g, w in zip(global_, local, strict=True)]


@pytest.mark.parametrize("form", FORMS)
def test_an_attack_on_data_and_upload(form):
    api, app = FORMS[form](Loud())
    uploaded, _ = train(app, arrays(), api=api)
    x, y = data()
    x[:ROUND] += 1
    trained = step(arrays(), x, y)
    assert same(uploaded, [g - w if w.dtype.kind == "f" else w for g, w in zip(arrays(), trained, strict=True)])


# ---- stacks: the attack nearest to the client changes the upload first, and sees the data last

STACKS = {
    "instance": lambda outer, inner: ("classic", ClientApp(lambda context: outer(inner(Toy())).to_client())),
    "class": lambda outer, inner: ("classic", ClientApp(lambda context: outer(inner(Toy))().to_client())),
    "client_fn": lambda outer, inner: ("classic", ClientApp(outer(inner(toy_fn)))),
    "mods": lambda outer, inner: ("message", numpy_client_app(toy_fn, mods=[outer.mod, inner.mod])),
    "mods of a function": lambda outer, inner: ("message", message_app([outer.mod, inner.mod])),
    "mod and class": lambda outer, inner: ("message", numpy_client_app(lambda context: inner(Toy)(), [outer.mod])),
    "mod and client_fn": lambda outer, inner: ("message", numpy_client_app(inner(toy_fn), [outer.mod])),
}


@pytest.mark.parametrize("form", STACKS)
def test_stacked_attacks_on_the_upload(form):
    zero, boost = ZeroAttack(), ModelReplacement(scale=2.0)
    w = arrays()
    api, app = STACKS[form](boost, zero)
    assert same(train(app, w, api=api)[0], model_replacement(w, zero_attack(w, _honest(w)), boost=2.0))
    api, app = STACKS[form](zero, boost)
    assert same(train(app, w, api=api)[0], zero_attack(w, _honest(w)))


@pytest.mark.parametrize("form", STACKS)
def test_stacked_attacks_on_the_data(form):
    first, second = LabelFlipping(source=0, target=1), LabelFlipping(source=1, target=2)
    api, app = STACKS[form](first, second)
    assert same(train(app, arrays(), api=api)[0], _honest(arrays(), lambda y: np.where(y < 2, 2, y)))
    api, app = STACKS[form](second, first)
    assert same(train(app, arrays(), api=api)[0], _honest(arrays(), lambda y: np.array([1, 2, 2, 3, 4])[y]))


@pytest.mark.parametrize("form", STACKS)
def test_a_boosted_backdoor(form):
    backdoor = BadNets(target=4, fraction=0.4)
    api, app = STACKS[form](ModelReplacement(scale=5.0), backdoor)
    trained = _badnets(arrays(), Trigger(), 4, 0.4, 0)
    assert same(train(app, arrays(), api=api)[0], model_replacement(arrays(), trained, boost=5.0))


# ---- clients that make it hard


class InPlace(Toy):
    def fit(self, parameters, config):
        trained, n, metrics = super().fit(parameters, config)
        for array, new in zip(parameters, trained, strict=True):
            array[...] = new
        return parameters, n, metrics


@pytest.mark.parametrize("api", ["classic", "message"])
@pytest.mark.parametrize("form", ["instance", "mod"])
def test_training_in_place_does_not_hide_the_global_model_from_the_attack(form, api):
    attack = SignFlipping(scale=4.0)

    def client_fn(context):
        return (InPlace() if form == "mod" else attack(InPlace())).to_client()

    make = ClientApp if api == "classic" else numpy_client_app
    app = make(client_fn, mods=[attack.mod] if form == "mod" else [])
    assert same(train(app, arrays(), api=api)[0], sign_flipping(arrays(), _honest(arrays()), scale=4.0))


def _echo_app(mods, *, empty=False):
    """Flower's own example of a train function: it sends the message's content back."""
    app = ClientApp()

    @app.train(mods=mods)
    def run(message, context):
        content = RecordDict(dict(message.content))
        if empty:  # what ArrayRecord.to_torch_state_dict(keep_input=False) does to save memory
            content["arrays"] = message.content["arrays"].copy()
            message.content["arrays"].clear()
            return Message(content, reply_to=message)
        return Message(message.content, reply_to=message)

    return app


def test_a_mod_does_not_change_the_message_of_a_client_that_echoes_it():
    sent = message("train", arrays(), {"server-round": 1})
    reply = _echo_app([ZeroAttack().mod])(sent, context())
    assert not reply.content["arrays"]["layer-z"].numpy().any()
    assert same([a.numpy() for a in sent.content["arrays"].values()], arrays())
    assert reply.content["config"] == {"server-round": 1}


def test_a_mod_remembers_the_global_model_of_a_client_that_empties_the_message():
    uploaded, _ = train(_echo_app([RandomAttack().mod], empty=True), arrays(), api="message")
    assert same(uploaded, random_attack(arrays(), arrays(), generator=_rng("random_attack")))


@pytest.mark.parametrize("back", [{}, {"arrays": ["other"]}, {"arrays": ["layer-z", "more"]}])
def test_a_mod_says_what_is_wrong_with_a_reply_of_other_arrays(back):
    app = ClientApp()

    @app.train(mods=[SignFlipping().mod])
    def run(message, context):
        records = {key: ArrayRecord({name: Array(np.ones(2)) for name in names}) for key, names in back.items()}
        return Message(RecordDict(records), reply_to=message)

    with pytest.raises(ConfigError, match=r"SignFlipping: the client must send back .* got layer-z and sent"):
        app(message("train", [np.zeros(2)], {"server-round": 1}), context())


def test_other_messages_pass_a_mod():
    app = ClientApp()

    @app.query(mods=[SignFlipping().mod, LabelFlipping(source=0, target=1).mod])
    def run(message, context):
        return Message(message.content, reply_to=message)

    sent = Message(RecordDict(), 99, "query")
    assert app(sent, context()).content is sent.content


def test_a_named_train_action_is_attacked_too():
    app = ClientApp()

    @app.train("often", mods=[ZeroAttack().mod])
    def run(message, context):
        return Message(message.content, reply_to=message)

    sent = Message(message("train", arrays(), {"server-round": 1}).content, 99, "train.often")
    assert not app(sent, context()).content["arrays"]["layer-z"].numpy().any()


class Broken(Toy):
    def fit(self, parameters, config):
        return None


@pytest.mark.parametrize("attack", [SignFlipping(), LabelFlipping(source=0, target=1)])
def test_a_wrong_return_type_under_an_attack_is_named(attack):
    with pytest.raises(TypeError, match=r"fit must return \(list of arrays, int, dict\).*; got None"):
        train(numpy_client_app(lambda context: attack(Broken())), arrays(), api="message")


# ---- what an attacked client still is


class All(Toy):
    def get_properties(self, config):
        return {"a": 1}

    def get_parameters(self, config):
        return arrays()


class OnlyFit(NumPyClient):
    """Trains, and no more."""

    def fit(self, parameters, config):
        return parameters, 1, {}


@pytest.mark.parametrize("make", [All, Toy, OnlyFit])
@pytest.mark.parametrize("how", ["class", "instance", "to_client", "twice"])
def test_flower_sees_the_same_methods_as_before(make, how):
    attack = SignFlipping()
    client = {
        "class": lambda: attack(make)(),
        "instance": lambda: attack(make()),
        "to_client": lambda: attack(make().to_client()).numpy_client,
        "twice": lambda: attack(attack(make)()),
    }[how]()
    assert isinstance(client, make)
    assert isinstance(client.to_client(), Client)
    # to_client gives its class a method for each one that the NumPyClient's class overrides
    assert vars(type(client.to_client())).keys() == vars(type(make().to_client())).keys()
    assert (type(client).__name__, type(client).__module__, type(client).__doc__) == (
        make.__name__,
        make.__module__,
        make.__doc__,
    )


def test_a_wrapped_client_and_its_original_share_their_attributes():
    client = Toy()
    attacked = SignFlipping()(client)
    attacked.visits = 1
    client.visits += 1
    assert attacked.visits == 2


def test_the_original_stays_honest():
    client, make = Toy(), type("Mine", (Toy,), {})
    attack = SignFlipping()
    attack(client), attack(make), attack(client.to_client())
    assert same(client.fit(arrays(), {})[0], _honest(arrays()))
    assert same(make().fit(arrays(), {})[0], _honest(arrays()))


def test_constructors_and_super_work_in_a_decorated_class():
    class Child(Decorated):
        def __init__(self):
            super().__init__(client_id=8)

        def fit(self, parameters, config):
            uploaded, n, metrics = super().fit(parameters, config)
            return uploaded, n + 1, metrics

    uploaded, n, _ = Child().fit(arrays(), {})
    assert (Child().client_id, n) == (8, 13)
    assert same(uploaded, sign_flipping(arrays(), _honest(arrays()), scale=2.0))


class NoFit(NumPyClient):
    def evaluate(self, parameters, config):
        return 0.0, 1, {}


class PlainClient(Client):
    pass


def _instance_fit():
    client = Toy()
    client.fit = lambda parameters, config: (parameters, 1, {})
    return client


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (NoFit, "NoFit has no method fit"),
        (NoFit(), "NoFit has no method fit"),
        (NoFit().to_client(), "NoFit has no method fit"),
        (NumPyClient, "NumPyClient has no method fit"),
        (_instance_fit(), "Toy has a fit set on the instance"),
        (PlainClient(), "SignFlipping attacks a NumPyClient"),
        (PlainClient, "SignFlipping attacks a NumPyClient"),
        (dict, "SignFlipping attacks a NumPyClient"),
        (7, "SignFlipping attacks a NumPyClient"),
        (LabelFlipping(source=0, target=1), "SignFlipping attacks a NumPyClient"),
        (ClientApp(), "SignFlipping attacks a NumPyClient"),
    ],
)
def test_what_cannot_be_attacked_is_refused_at_once(target, words):
    with pytest.raises(ConfigError, match=words):
        SignFlipping()(target)


def test_a_client_fn_keeps_its_name_and_signature():
    import inspect

    attacked = SignFlipping()(toy_fn)
    assert attacked.__name__ == "toy_fn"
    assert inspect.signature(attacked) == inspect.signature(toy_fn)


# ---- settings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SignFlipping(scale=-1.0), "scale"),
        (lambda: SignFlipping(scale="4"), "scale"),
        (lambda: SignFlipping(boost=4.0), "boost"),
        (lambda: ModelReplacement(scale=0.0), "scale"),
        (lambda: GaussianAttack(std=0.0), "std"),
        (lambda: RandomAttack(distribution="normal"), "distribution"),
        (lambda: BadNets(fraction=1.5), "fraction"),
        (lambda: BadNets(shape="plus", size=2), "size must be odd"),
        (lambda: BadNets(features=[0, 0]), "features"),
        (lambda: ClassFlipping(num_classes=0), "num_classes"),
        (lambda: LabelFlipping(), "source and target"),
        (lambda: LabelFlipping(source=1), "source and target"),
        (lambda: LabelFlipping(source=1, target=2, pairs=[(3, 4)]), "source and target"),
        (lambda: LabelFlipping(pairs=[(3, 4), (3, 5)]), "one target"),
        (lambda: SignFlipping(data_attribute=3), "data_attribute"),
        (lambda: SignFlipping(adversaries=[1, 2]), "adversaries"),
        (lambda: ZeroAttack(adversaries=[1, 2]), "ZeroAttack: adversaries"),
        (lambda: ZeroAttack(seed="7"), "ZeroAttack: seed"),
        (lambda: ZeroAttack(camp=1), "ZeroAttack: camp"),
    ],
)
def test_wrong_settings_are_named(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_badnets_on_images_of_bytes_says_what_to_do():
    client = Toy()
    client.trainset = (np.zeros((4, 1, 6, 6), np.uint8), np.arange(4))
    with pytest.raises(ConfigError, match="floating type"):
        BadNets(target=0)(client).fit(arrays(), {})
    assert ArrayDataset(np.zeros((4, 1, 6, 6), np.uint8), np.arange(4))[0][0].is_floating_point()
