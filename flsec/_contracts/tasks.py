"""The checks of a task."""

import inspect
import math
import re
from dataclasses import FrozenInstanceError, fields
from typing import Any

import torch
from torch import Tensor, nn

from flsec._contracts.battery import pickled
from flsec.errors import ConfigError
from flsec.tasks import NOT_COUNTED, Task
from flsec.training import Evaluation, evaluate

VOCABULARY_SIZE = 12  # and as many classes
_LENGTH, _NUM_EXAMPLES = 6, 11

Examples = tuple[Tensor, Tensor]


class _Answers(nn.Module):
    """The smallest network of the right shape: a linear layer on numbers, or on the vectors of tokens."""

    def __init__(self, task: Task, num_outputs: int):
        super().__init__()
        self._each_place = task.labels == "sequence"
        self.first: nn.Module = nn.Embedding(VOCABULARY_SIZE, 5) if task.inputs == "tokens" else nn.LazyLinear(5)
        self.second = nn.Linear(5, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        values = self.first(x if isinstance(self.first, nn.Embedding) else x.flatten(1))
        logits: Tensor = self.second(values.mean(dim=1) if values.ndim == 3 and not self._each_place else values)
        return logits


def example_model(task: Task, x: Tensor, num_outputs: int = VOCABULARY_SIZE) -> nn.Module:
    """Return a network of few weights whose outputs for x are such as the task judges."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = _Answers(task, num_outputs)
        model(x)  # gives the first layer its size
    for parameter in model.parameters():
        parameter.detach().mul_(3.0)  # so that outputs differ
    return model


def example_data(task: Task) -> Examples:
    """Return a few examples of the task's kinds; in sequences, places that are not counted, and a row of only such."""
    draw = torch.Generator().manual_seed(3)
    if task.inputs == "tokens":
        x = torch.randint(0, VOCABULARY_SIZE, (_NUM_EXAMPLES, _LENGTH), generator=draw)
    else:
        x = torch.rand(_NUM_EXAMPLES, 1, 4, 4, generator=draw)
    if task.labels != "sequence":
        return x, torch.randint(0, VOCABULARY_SIZE, (_NUM_EXAMPLES,), generator=draw)
    y = torch.randint(0, VOCABULARY_SIZE, (_NUM_EXAMPLES, _LENGTH), generator=draw)
    y[torch.rand(y.shape, generator=draw) < 0.4] = NOT_COUNTED
    y[1] = NOT_COUNTED
    return x, y


class TaskBattery:
    def __init__(self, task: Task, model: nn.Module | None, examples: Examples | None):
        self._task = task
        self._x, self._y = example_data(task) if examples is None else examples
        self._model = example_model(task, self._x) if model is None else model
        self._model.eval()
        self._gives_logits = task.labels != "none" and type(task).outputs is Task.outputs

    def _outputs(self, x: Tensor) -> Any:
        with torch.no_grad():
            return self._task.outputs(self._model, x)

    def _perfect(self) -> Tensor:
        """Return logits that are sure of the labels."""
        counted = self._y.clamp(min=0)
        size = self._outputs(self._x).shape[-1]
        return 50.0 * nn.functional.one_hot(counted, size).float()

    def says_what_it_is(self) -> None:
        text = inspect.getdoc(type(self._task)) or ""
        assert re.search(r"^Source:", text, re.MULTILINE), "the docstring has no Source: section"
        missing = [
            field.name for field in fields(self._task) if not re.search(rf"^ +{field.name}:", text, re.MULTILINE)
        ]
        assert not missing, f"the docstring's Args do not explain {', '.join(missing)}"

    def is_a_value(self) -> None:
        twin = pickled(self._task)
        assert twin == self._task, "a pickled one is not equal"
        assert hash(twin) == hash(self._task), "a pickled one has another hash"
        try:
            self._task.anything = 1  # type: ignore[attr-defined]
        except FrozenInstanceError:
            return
        raise AssertionError("it is no frozen dataclass: an attribute can be set")

    def takes_its_own_data(self) -> None:
        assert self._task.takes_data_of(self._task), "it does not take data that were made for it"

    def accepts_a_model_that_serves_it(self) -> None:
        self._task.check_model(self._model, self._x[:2], VOCABULARY_SIZE)

    def refuses_a_model_that_does_not(self) -> None:
        other = example_model(self._task, self._x, num_outputs=VOCABULARY_SIZE + 1)
        try:
            self._task.check_model(other, self._x[:2], VOCABULARY_SIZE)
        except ConfigError:
            return
        raise AssertionError("a model with an output too many is accepted")

    def computes_cross_entropy(self) -> None:
        """Only where it takes over the loss of all tasks."""
        if type(self._task).loss is not Task.loss or not self._gives_logits:
            return
        outputs = self._outputs(self._x)
        expected, count = 0.0, 0
        for logits, label in zip(outputs.double().flatten(0, -2).tolist(), self._y.flatten().tolist(), strict=True):
            if label != NOT_COUNTED:
                top = max(logits)
                expected += top + math.log(math.fsum(math.exp(value - top) for value in logits)) - logits[label]
                count += 1
        got = float(self._task.loss(outputs, self._y))
        assert math.isclose(got, expected / count, rel_tol=1e-5), f"{got}, and by hand {expected / count}"

    def is_content_with_what_is_right(self) -> None:
        if not self._gives_logits:
            return
        perfect, drawn = self._perfect(), self._outputs(self._x)
        low, high = (float(self._task.loss(outputs, self._y)) for outputs in (perfect, drawn))
        assert low < high, f"right outputs have the loss {low}, others {high}"
        right, count = self._task.tallies(perfect, self._y)["accuracy"]
        assert float(right) == count, f"of {count} right outputs, {float(right):g} count as right"

    def counts_labels(self) -> None:
        counted = {"class": len(self._y), "sequence": int((self._y != NOT_COUNTED).sum()), "none": len(self._x)}
        wanted, got = counted[self._task.labels], self._task.num_counted(self._y)
        assert got == wanted, f"num_counted is {got} for {wanted} labels"

    def adds_up_over_batches(self) -> None:
        whole = self._outputs(self._x)
        tallies = self._task.tallies(whole, self._y)
        assert "accuracy" in tallies, f"there is no accuracy among {', '.join(tallies)}"
        sums: dict[str, Any] = dict.fromkeys(tallies, 0.0)
        counts, loss = dict.fromkeys(tallies, 0), 0.0
        for rows in (slice(0, 1), slice(1, 2), slice(2, 6), slice(6, None)):
            outputs, labels = self._outputs(self._x[rows]), self._y[rows]
            loss += float(self._task.loss(outputs, labels)) * self._task.num_counted(labels)
            for name, (value, count) in self._task.tallies(outputs, labels).items():
                sums[name], counts[name] = sums[name] + value.double(), counts[name] + count
        for name, (value, count) in tallies.items():
            assert counts[name] == count, f"{name}: batches count {counts[name]}, all at once {count}"
            same = torch.allclose(sums[name], value.double(), rtol=1e-4, atol=1e-5)
            assert same, f"{name}: batches add up to {sums[name]}, all at once it is {value}"
        mean, all_at_once = loss / self._task.num_counted(self._y), float(self._task.loss(whole, self._y))
        assert math.isclose(mean, all_at_once, rel_tol=1e-4), f"loss: {mean} in batches, {all_at_once} all at once"

    def does_not_look_where_nothing_is_counted(self) -> None:
        if self._task.labels != "sequence" or not self._gives_logits:
            return
        outputs = self._outputs(self._x)
        other = torch.where((self._y == NOT_COUNTED).unsqueeze(-1), outputs.flip(-1) + 1.0, outputs)
        pairs = [(self._task.loss(o, self._y), self._task.tallies(o, self._y)) for o in (outputs, other)]
        assert torch.equal(pairs[0][0], pairs[1][0]), "places that are not counted change the loss"
        for name, (value, count) in pairs[0][1].items():
            same = torch.equal(value, pairs[1][1][name][0]) and count == pairs[1][1][name][1]
            assert same, f"places that are not counted change {name}"
        nothing = torch.full_like(self._y[:2], NOT_COUNTED)
        loss = self._task.loss(outputs[:2], nothing)
        assert float(loss) == 0, f"where nothing is counted, the loss is {float(loss)}"
        assert self._task.num_counted(nothing) == 0, "where nothing is counted, num_counted is not 0"

    def has_a_finite_gradient(self) -> None:
        parameters = list(self._model.parameters())
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            loss = self._task.batch_loss(self._model, self._x, self._y)
        assert loss.ndim == 0, f"batch_loss is no number but of shape {tuple(loss.shape)}"
        gradients = [g for g in torch.autograd.grad(loss, parameters, allow_unused=True) if g is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients), "the gradient is not finite"
        assert any(bool(gradient.any()) for gradient in gradients), "the gradient is zero"

    def evaluates_the_same_in_batches_of_any_size(self) -> None:
        before = torch.random.get_rng_state()
        results = [evaluate(self._model, self._x, self._y, size, task=self._task) for size in (1, 4, 1024)]
        assert torch.equal(torch.random.get_rng_state(), before), "it draws from torch's global random state"
        for result in results:
            self._check_result(result)
            assert math.isclose(result.loss, results[0].loss, rel_tol=1e-4), f"{result.loss}, and {results[0].loss}"
            for name, value in result.measures.items():
                first = results[0].measures[name]
                assert math.isclose(value, first, rel_tol=1e-3, abs_tol=1e-5), f"{name}: {value}, and {first}"

    def _check_result(self, result: Evaluation) -> None:
        assert len(result.predictions) == len(self._y), f"{len(result.predictions)} predictions for {len(self._y)}"
        if self._task.labels != "none":
            assert result.predictions.shape == self._y.shape, "predictions have not the labels' shape"
        kinds = {name: type(value).__name__ for name, value in result.measures.items() if type(value) is not float}
        assert not kinds, f"measures must be of type float; got {kinds}"
        assert 0 <= result.accuracy <= 1, f"the accuracy is {result.accuracy}"
