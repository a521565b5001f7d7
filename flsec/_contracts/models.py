"""The checks of a model."""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from flsec._contracts.battery import pickled
from flsec._contracts.tasks import VOCABULARY_SIZE
from flsec.errors import ConfigError
from flsec.models import MODELS, build_model
from flsec.parameters import parameters_of
from flsec.tasks import Task
from flsec.training import get_weights, set_weights, weight_names

_PAD = 0


class FirstTokens:
    """A vocabulary of nothing but numbers."""

    size, pad = VOCABULARY_SIZE, _PAD

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % self.size for letter in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))


class ModelBattery:
    def __init__(
        self,
        name: str,
        tasks: Sequence[Task],
        input_shape: tuple[int, ...],
        num_classes: int,
        parameters: Mapping[str, Any],
        without_gradient: Sequence[str],
        starts_constant: bool,
    ):
        self._name, self._shape, self._parameters = name, input_shape, dict(parameters)
        self._reads_tokens = tasks[0].inputs == "tokens"
        self._classes = VOCABULARY_SIZE if self._reads_tokens else num_classes  # what is predicted may be a token
        self._without_gradient, self._starts_constant = without_gradient, starts_constant
        self._tasks = [self._setting(task) for task in tasks]

    # --- what it is checked with ------------------------------------------------------------------------------

    def _build(self, seed: int = 0, shape: Any = None) -> nn.Module:
        vocabulary: Any = FirstTokens() if self._reads_tokens else None
        shape = self._shape if shape is None else shape
        return build_model(self._name, shape, self._classes, seed, vocabulary=vocabulary, **self._parameters)

    def _batch(self, n: int = 4, seed: int = 0) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        if self._reads_tokens:
            tokens = torch.randint(1, VOCABULARY_SIZE, (n, *self._shape), generator=draw)
            tokens[0, -1] = _PAD  # as a short text has it
            return tokens
        return torch.rand(n, *self._shape, generator=draw)

    def _labels(self, task: Task, n: int = 4) -> Tensor:
        shape = (n, *self._shape[:1]) if task.labels == "sequence" else (n,)
        return torch.randint(0, self._classes, shape, generator=torch.Generator().manual_seed(1))

    def _stirred(self) -> nn.Module:
        """Return the model with no weight as it started: zeros would let too much pass."""
        model = self._build()
        draw = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
        return model

    def _setting(self, task: Task) -> Task:
        """Return the task in the first of its settings that the model serves: of next_token, one position or all."""
        for choice in (task, *_variants(task)):
            with contextlib.suppress(Exception):  # which of them, if none will do, is the checks' to say
                choice.check_model(self._build().eval(), self._batch(2), self._classes)
                return choice
        return task

    # --- the checks -------------------------------------------------------------------------------------------

    def takes_what_every_model_takes(self) -> None:
        known = list(parameters_of(MODELS.get(self._name)))
        assert known[:2] == ["input_shape", "num_classes"], f"the constructor takes {', '.join(known[:2])} first"
        model = self._build()
        assert model.training, "it is not built in training mode"
        devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}
        assert devices <= {"cpu"}, f"it is built on {', '.join(sorted(devices))}"

    def depends_on_the_seed_alone(self) -> None:
        first = get_weights(self._build(seed=5))
        state = torch.random.get_rng_state()
        torch.rand(17)
        try:
            again, other = get_weights(self._build(seed=5)), get_weights(self._build(seed=6))
        finally:
            torch.random.set_rng_state(state)
        assert _same(first, again), "the same seed gives other weights the second time"
        if not self._starts_constant:
            assert not _same(first, other), "another seed gives the same weights; starts_constant=True if meant so"

    def leaves_the_global_random_state_alone(self) -> None:
        before = _random_states()
        model = self._build().eval()
        with torch.no_grad():
            model(self._batch())
        after = _random_states()
        assert before[0] == after[0], "building or evaluating it draws from torch's global random state"
        assert before[1] == after[1], "building or evaluating it draws from numpy's global random state"

    def gives_what_its_tasks_judge(self) -> None:
        model = self._build().eval()
        for task in self._tasks:
            _without_config_error(
                lambda task=task: task.check_model(model, self._batch(2), self._classes),  # type: ignore[misc]
                f"task {task.name}",
            )
            x, y = self._batch(), self._labels(task)
            with torch.no_grad():
                loss = task.loss(task.outputs(model, x), y)
            assert bool(loss.isfinite()), f"task {task.name}: the loss of its first outputs is {float(loss)}"

    def judges_each_example_by_itself(self) -> None:
        model, x = self._stirred().eval(), self._batch(6)
        with torch.no_grad():
            together, alone = model(x), torch.cat([model(x[i : i + 1]) for i in range(len(x))])
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5, msg=lambda text: f"one by one: {text}")
        assert not torch.allclose(together[0], together[1]), "two examples give the same outputs"

    def evaluates_the_same_twice(self) -> None:
        model, x = self._stirred().eval(), self._batch()
        before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        with torch.no_grad():
            first, second = model(x), model(x)
        assert torch.equal(first, second), "in evaluation mode, two calls give two results"
        changed = [name for name, value in before.items() if not torch.equal(value, model.state_dict()[name])]
        assert not changed, f"an evaluation changes {changed[0]}"

    def trains_every_parameter(self) -> None:
        parameters = {name: p for name, p in self._build().named_parameters() if p.requires_grad}
        assert parameters, "nothing of it requires a gradient"
        for task in self._tasks:
            model = self._stirred()
            named = {name: p for name, p in model.named_parameters() if p.requires_grad}
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                loss = task.batch_loss(model, self._batch(8), self._labels(task, 8))
                gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            for name, gradient in zip(named, gradients, strict=True):
                reached = gradient is not None and bool(gradient.any())
                assert gradient is None or bool(gradient.isfinite().all()), f"the gradient of {name} is not finite"
                assert reached or name in self._without_gradient, f"task {task.name}: no gradient reaches {name}"

    def keeps_its_buffers_sane(self) -> None:
        model = self._build().train()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            task = self._tasks[0]
            task.batch_loss(model, self._batch(), self._labels(task))
        for name, value in model.named_buffers():
            if value.is_floating_point():
                assert bool(value.isfinite().all()), f"after a batch in training mode, {name} is not finite"

    def sends_its_weights_round(self) -> None:
        model, other = self._stirred().eval(), self._build(seed=9).eval()
        weights = get_weights(model)
        assert len(weights) == len(weight_names(model)) > 0, "it exchanges nothing"
        assert len(set(weight_names(model))) == len(weights), "two of its weights have the same name"
        set_weights(other, weights)
        assert _same(get_weights(other), weights), "what set_weights sets is not what get_weights returns"
        if len(weights) == len(model.state_dict()):  # all travels
            x = self._batch()
            with torch.no_grad():
                assert torch.equal(model(x), other(x)), "with the same weights, a second model gives other outputs"

    def is_copied_and_pickled(self) -> None:
        model, x = self._stirred().eval(), self._batch()
        for how, twin in (("a deep copy", copy.deepcopy(model)), ("a pickled one", pickled(model))):
            with torch.no_grad():
                assert torch.equal(model(x), twin(x)), f"{how} gives other outputs"
            before = get_weights(model)
            set_weights(twin, [weights + 1 for weights in get_weights(twin)])
            assert _same(get_weights(model), before), f"{how} shares weights that travel with the original"

    def refuses_what_it_cannot_read(self) -> None:
        for shape in ((), (0, *self._shape[1:]), (*self._shape, 2, 2, 2)):
            try:
                model = self._build(shape=shape).eval()
            except ConfigError:
                continue
            except Exception as error:
                raise AssertionError(f"input_shape {shape}: {type(error).__name__} instead of ConfigError") from error
            assert math.prod(shape) > 1, f"input_shape {shape} is accepted"
            with torch.no_grad():  # accepted: then it can read such examples
                model(torch.zeros(2, *shape, dtype=self._batch().dtype))


def _variants(task: Task) -> Iterator[Task]:
    """Yield the task with each value of its parameters that have a few words to choose from."""
    for name, (hint, _) in parameters_of(type(task)).items():
        for value in get_args(hint) if get_origin(hint) is Literal else ():
            yield dataclasses.replace(task, **{name: value})


def _random_states() -> tuple[bytes, str]:
    state: Any = np.random.get_state()
    return torch.random.get_rng_state().numpy().tobytes(), f"{state[1].tolist()} {state[2]}"


def _same(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def _without_config_error(call: Callable[[], None], what: str) -> None:
    try:
        call()
    except ConfigError as error:
        raise AssertionError(f"{what}: the model {error}") from error
