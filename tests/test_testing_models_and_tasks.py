"""Each check of a model's and of a task's contract can fail: one that is broken in just that way."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from flsec._contracts.models import ModelBattery
from flsec._contracts.tasks import TaskBattery
from flsec.errors import ConfigError
from flsec.tasks import Classification, NextToken, Task
from flsec.testing import check_model, check_task

SHAPE, CLASSES = (2, 3), 5


def checks_of(battery):
    return {name for name in vars(battery) if not name.startswith("_")}


def assert_fails(battery, check, reason):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any; the reason is what counts
        getattr(battery, check)()
    assert re.search(reason, f"{type(caught.value).__name__}: {caught.value}")


# --- models -----------------------------------------------------------------------------------------------------


class Sound(nn.Module):
    """Two layers, the first normalised and followed by dropout."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        if not input_shape or 0 in input_shape:
            raise ConfigError("input_shape needs at least one number, all of them positive; got none, or 0.")
        self.first = nn.Linear(math.prod(input_shape), 7)
        self.normalise, self.drop = nn.BatchNorm1d(7), nn.Dropout(0.5)
        self.second = nn.Linear(7, num_classes)

    def forward(self, x):
        return self.second(self.drop(self.normalise(self.first(x.flatten(1))).tanh()))


class OtherOrder(Sound):
    def __init__(self, num_classes, input_shape):
        super().__init__(input_shape, num_classes)


class Unseeded(Sound):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.first.bias.data += float(np.random.default_rng().random())


class Constant(Sound):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class Draws(Sound):
    def forward(self, x):
        return super().forward(x) + 0 * torch.rand(1)


class DrawsOfNumpy(Sound):
    def forward(self, x):
        return super().forward(x) + 0 * np.random.random()


class OneTooMany(Sound):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes + 1)


class Compares(Sound):
    def forward(self, x):
        return super().forward(x - x.mean(dim=0))


class SeesNothing(Sound):
    def forward(self, x):
        return super().forward(torch.zeros_like(x))


class Remembers(Sound):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Idle(Sound):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.idle = nn.Parameter(torch.ones(2))


class Spoils(Remembers):
    def forward(self, x):
        self.calls /= 0
        return super().forward(x)


class SendsNothing(Sound):
    def exchanged_state(self):
        return {}


class IsItsCopy(Sound):
    def __deepcopy__(self, memo):
        return self


class TakesAll(Sound):
    def __init__(self, input_shape, num_classes):
        super().__init__((max(1, math.prod(input_shape)),), num_classes)


BROKEN_MODELS = [
    ("takes_what_every_model_takes", OtherOrder, "takes num_classes, input_shape first"),
    ("depends_on_the_seed_alone", Unseeded, "other weights the second time"),
    ("depends_on_the_seed_alone", Constant, "starts_constant=True if meant so"),
    ("leaves_the_global_random_state_alone", Draws, "torch's global random state"),
    ("leaves_the_global_random_state_alone", DrawsOfNumpy, "numpy's global random state"),
    ("gives_what_its_tasks_judge", OneTooMany, r"task classification: the model must return one number a class"),
    ("judges_each_example_by_itself", Compares, "one by one"),
    ("judges_each_example_by_itself", SeesNothing, "two examples give the same outputs"),
    ("evaluates_the_same_twice", Remembers, "an evaluation changes calls"),
    ("trains_every_parameter", Idle, "task classification: no gradient reaches idle"),
    ("keeps_its_buffers_sane", Spoils, "after a batch in training mode, calls is not finite"),
    ("sends_its_weights_round", SendsNothing, "it exchanges nothing"),
    ("is_copied_and_pickled", IsItsCopy, "a deep copy shares weights"),
    ("refuses_what_it_cannot_read", TakesAll, r"input_shape \(\) is accepted"),
]


def model_battery(model):
    return ModelBattery(f"{__name__}:{model.__name__}", [Classification()], SHAPE, CLASSES, {}, (), False)


@pytest.mark.parametrize(("check", "broken", "reason"), BROKEN_MODELS)
def test_each_check_of_a_model_can_fail(check, broken, reason):
    getattr(model_battery(Sound), check)()
    assert_fails(model_battery(broken), check, reason)


def test_no_check_of_a_model_is_left_out():
    assert {check for check, _, _ in BROKEN_MODELS} == checks_of(ModelBattery)


def test_a_model_of_ones_own_is_checked_by_its_path_and_a_failure_names_both():
    check_model(f"{__name__}:Sound", input_shape=SHAPE)
    with pytest.raises(AssertionError, match=r"Idle: trains every parameter: .* no gradient reaches idle"):
        check_model(f"{__name__}:Idle")


def test_exemptions_of_a_model_switch_off_what_they_name():
    check_model(f"{__name__}:Idle", without_gradient=["idle"])
    check_model(f"{__name__}:Constant", starts_constant=True)
    with pytest.raises(ConfigError, match="Did you mean 'mlp_gan'"):
        check_model("mlp_gam")


# --- tasks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NoSource(Classification):
    """It does not say where it is from."""


@dataclass(frozen=True, kw_only=True)
class Unexplained(Classification):
    """A classification.

    Source: made up.
    """

    weight: float = 1.0


class NoValue(Classification):
    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


class Open(Classification):
    def __setattr__(self, name, value):
        self.__dict__[name] = value


class TakesNothing(Classification):
    def takes_data_of(self, other):
        return False


class RefusesAll(Classification):
    def check_model(self, model, x, num_classes):
        raise ConfigError("no model will do.")


class AcceptsAll(Classification):
    def check_model(self, model, x, num_classes):
        pass


class Reversed(Classification):
    def loss(self, outputs, labels):
        return -super().loss(outputs, labels)


class Shifted(Classification):
    def predictions(self, outputs):
        return (super().predictions(outputs) + 1) % outputs.shape[-1]


class CountsOne(Classification):
    def num_counted(self, labels):
        return 1


@dataclass(frozen=True, kw_only=True)
class Sums(Classification):
    """A classification whose loss is a sum.

    Source: made up.
    """

    def loss(self, outputs, labels):
        return super().loss(outputs, labels) * len(labels)


class NoAccuracy(Classification):
    def tallies(self, outputs, labels):
        return {}


class OfTheBatch(Classification):
    def tallies(self, outputs, labels):
        return {**super().tallies(outputs, labels), "largest": (outputs.max() * len(labels), len(labels))}


class LooksEverywhere(NextToken):
    positions = "all"

    def tallies(self, outputs, labels):
        return {**super().tallies(outputs, labels), "mean": (outputs.sum(), outputs.numel())}


class Infinite(Classification):
    def batch_loss(self, model, x, y):
        return super().batch_loss(model, x, y) * torch.inf


class Flat(Classification):
    def batch_loss(self, model, x, y):
        return super().batch_loss(model, x, y) * 0


class NotSummed(Classification):
    def batch_loss(self, model, x, y):
        return super().batch_loss(model, x, y)[None]


class NoNumbers(Classification):
    def summary(self, loss, means):
        return {name: torch.tensor(mean) for name, mean in means.items()}


class Rolls(Classification):
    def outputs(self, model, x, places=None):
        return super().outputs(model, x, places) + torch.rand(())


BROKEN_TASKS = [
    ("says_what_it_is", NoSource, "no Source: section"),
    ("says_what_it_is", Unexplained, "do not explain weight"),
    ("is_a_value", NoValue, "a pickled one is not equal"),
    ("is_a_value", Open, "no frozen dataclass"),
    ("takes_its_own_data", TakesNothing, "does not take data"),
    ("accepts_a_model_that_serves_it", RefusesAll, "no model will do"),
    ("refuses_a_model_that_does_not", AcceptsAll, "an output too many is accepted"),
    ("is_content_with_what_is_right", Reversed, "right outputs have the loss"),
    ("is_content_with_what_is_right", Shifted, "of 11 right outputs, 0 count as right"),
    ("counts_labels", CountsOne, "num_counted is 1 for 11 labels"),
    ("adds_up_over_batches", Sums, "in batches, .* all at once"),
    ("adds_up_over_batches", NoAccuracy, "there is no accuracy"),
    ("adds_up_over_batches", OfTheBatch, "largest: batches add up to"),
    ("does_not_look_where_nothing_is_counted", LooksEverywhere, "not counted change mean"),
    ("has_a_finite_gradient", Infinite, "the gradient is not finite"),
    ("has_a_finite_gradient", Flat, "the gradient is zero"),
    ("has_a_finite_gradient", NotSummed, "batch_loss is no number"),
    ("evaluates_the_same_in_batches_of_any_size", NoNumbers, "measures must be of type float"),
    ("evaluates_the_same_in_batches_of_any_size", Rolls, "global random state"),
]


@pytest.mark.parametrize(("check", "broken", "reason"), BROKEN_TASKS)
def test_each_check_of_a_task_can_fail(check, broken, reason):
    sound = NextToken(positions="all") if issubclass(broken, NextToken) else Classification()
    getattr(TaskBattery(sound, None, None), check)()
    task = broken(positions="all") if issubclass(broken, NextToken) else broken()
    assert_fails(TaskBattery(task, None, None), check, reason)


def test_the_check_of_cross_entropy_can_fail(monkeypatch):
    right = Task.loss
    monkeypatch.setattr(Task, "loss", lambda task, outputs, labels: 1.01 * right(task, outputs, labels))
    assert_fails(TaskBattery(Classification(), None, None), "computes_cross_entropy", "and by hand")


def test_no_check_of_a_task_is_left_out():
    assert {check for check, _, _ in BROKEN_TASKS} | {"computes_cross_entropy"} == checks_of(TaskBattery)


def test_the_message_names_task_and_check():
    with pytest.raises(AssertionError, match=r"sums: adds up over batches: .* all at once"):
        check_task(Sums())


def test_a_task_of_ones_own_brings_its_model_and_examples():
    x, y = torch.rand(8, 3), torch.arange(8) % 12
    check_task(Classification(), model=nn.Linear(3, 12), examples=(x, y))
