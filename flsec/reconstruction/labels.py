import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.randomness import generator
from flsec.reconstruction._arguments import check_attack
from flsec.reconstruction._matching import check_gradients, random_start

__all__ = ["RevealedLabels", "reveal_labels"]

Array = npt.NDArray[np.float64]

_NOISE = 1e-6  # singular values below this share of the largest are rounding errors of float32 gradients
_NEARLY_WHOLE = 0.2  # estimates of untrained networks come out closer to whole numbers than this
_SLACK = 1e-3  # by how much an entry may have the wrong sign, relative to the label's own


@dataclass(frozen=True, eq=False, kw_only=True)
class RevealedLabels:
    """The labels of a batch, without their order.

    Attributes:
        labels: (n,) int64, ascending, each as often as it is thought to occur.
        counts: (C,) int64, how often each class is thought to occur; their sum is n.
        estimates: (C,) float64, the counts before they were made whole. Far from whole: distrust them.

    Example:
        >>> RevealedLabels(
        ...     labels=torch.tensor([2, 2]), counts=torch.tensor([0, 0, 2]), estimates=torch.tensor([0.1, 0.0, 1.9])
        ... ).labels
        tensor([2, 2])
    """

    labels: Tensor
    counts: Tensor
    estimates: Tensor


@explained
def reveal_labels(
    model: nn.Module,
    gradients: Sequence[Tensor],
    *,
    input_shape: Sequence[PositiveCount],
    num_classes: Annotated[int, Ge(2)],
    batch_size: PositiveCount = 1,
) -> RevealedLabels:
    """Read the labels of a batch off the gradient of the network's last layer; no optimisation, no start, no seed.

    The last layer's gradient is a sum over the examples of (p - onehot(y)) times the features that the layer was
    given, p being the predicted probabilities: only the row of the right class is negative.

    - One example (iDLG): the label is the class with the negative bias gradient. Always right.
    - A batch (Geng et al., Ma et al.): the row of a class that occurs, divided by its bias gradient, is about the mean
      feature of its examples; what the network predicts there gives the gradient that one example of that class
      adds to the bias, and the counts are the non-negative combination that gives the observed one.
    - Where these counts are far from whole, the set of classes is settled first (Dang et al.): a class occurs if its
      bias gradient is negative, or if a hyperplane through the rows of the weight gradient parts it from all other
      classes, which a linear program per class decides. That assumes nothing about features or predictions, but says
      something only for batches smaller than C and than the number of features; a class that does not occur can pass
      by chance, the more so the nearer the batch size comes to C.

    Limits. On untrained networks all examples have nearly the same features and the counts come out right, with
    repeats and for batches larger than C too. On trained networks the set of classes stays reliable for batches well
    below C as long as the gradients are not noised, but how the repeats are spread over that set becomes a guess. The
    counts need the gradient's true scale: undo clipping first. For an update of several steps give what
    ``Observation.gradients`` returns: it is as good as the last layer is constant over these steps.

    Args:
        model: the network with the weights that the client started from; its last layer must be an ``nn.Linear``,
            with or without bias, perhaps followed by an activation. Not changed.
        gradients: of the mean cross-entropy, one per parameter that requires a gradient, in the order of
            ``model.parameters()``. Only the last layer's are used.
        input_shape: of one example.
        num_classes: C.
        batch_size: n, how many labels to find.

    Returns:
        The labels with their multiplicities.

    Raises:
        ConfigError: gradients that do not fit the model, are not finite or are all zero; no linear last layer with
            num_classes outputs; or a parameter out of range.

    Example:
        >>> from flsec.models import MLP
        >>> torch.manual_seed(0) and None
        >>> model, x, y = MLP((4,), 10, hidden=[32]), torch.rand(5, 4), torch.tensor([3, 8, 3, 1, 0])
        >>> gradients = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
        >>> reveal_labels(model, gradients, input_shape=(4,), num_classes=10, batch_size=5).labels
        tensor([0, 1, 3, 3, 8])

    Source: Zhao, Mopuri and Bilen, "iDLG", 2020, Eq. 4; Dang et al., "Revealing and Protecting Labels in Distributed
    Training", NeurIPS 2021, Sec. 3; Geng et al., "Towards General Deep Leakage in Federated Learning", 2021; Ma et al.,
    "Instance-wise Batch Label Restoration via Gradients in Federated Learning", ICLR 2023.
    """
    check_attack(reveal_labels, locals())
    layer = _LastLayer(model, check_gradients(model, gradients), input_shape, num_classes)
    occurring: Sequence[int] = []  # nothing is known
    if batch_size == 1:
        estimates = np.zeros(num_classes)
        estimates[layer.bias_gradient.argmin()] = 1.0
    else:
        estimates = _estimates(layer, batch_size, range(num_classes))
        # only the label itself makes its bias gradient negative
        certain = layer.bias_gradient < -_SLACK * np.abs(layer.bias_gradient).max()
        if np.abs(estimates - estimates.round()).max() > _NEARLY_WHOLE or not estimates.round()[certain].all():
            occurring = _occurring(layer.weight_gradient, certain, batch_size)
            estimates = _estimates(layer, batch_size, occurring or range(num_classes))
    counts = torch.from_numpy(_whole(estimates, batch_size, occurring))
    return RevealedLabels(
        labels=torch.arange(num_classes).repeat_interleave(counts),
        counts=counts,
        estimates=torch.from_numpy(estimates),
    )


class _LastLayer:
    """The last linear layer in float64: its weights, their gradient, and what the network makes of its output."""

    def __init__(self, model: nn.Module, gradients: Sequence[Tensor], input_shape: Sequence[int], num_classes: int):
        self._network = copy.deepcopy(model).double().cpu().eval()
        self._input_shape = tuple(input_shape)
        names = [name for name, p in self._network.named_parameters() if p.requires_grad]
        layers = {name: module for name, module in self._network.named_modules() if isinstance(module, nn.Linear)}
        name, self._linear = list(layers.items())[-1] if layers else ("", nn.Linear(1, 1))
        if f"{name}.weight".lstrip(".") not in names or self._linear.out_features != num_classes:
            raise ConfigError(
                f"reveal_labels needs a last layer nn.Linear with num_classes={num_classes} outputs, and its gradient; "
                f"the model's last nn.Linear is {name!r} with {self._linear.out_features} outputs."
                if layers
                else "reveal_labels needs a last layer nn.Linear; the model has none."
            )
        by_name = {key: g.detach().double().cpu().numpy() for key, g in zip(names, gradients, strict=True)}
        self.weight_gradient: Array = by_name[f"{name}.weight".lstrip(".")]  # (C, F)
        bias_gradient = by_name.get(f"{name}.bias".lstrip("."))
        if bias_gradient is None:
            features = self._dummy_features()
            bias_gradient = self.weight_gradient @ features / (features @ features)
        self.bias_gradient: Array = bias_gradient  # (C,)

    def _dummy_features(self) -> Array:
        """Return the features (F,) that the layer meets when the network is shown noise."""
        noise = random_start((32, *self._input_shape), 0.5, 0.1, generator(0, purpose="labels"), self._linear.weight)
        seen: list[Tensor] = []
        self._through(noise, lambda _, inputs, output: seen.append(inputs[0]))
        mean: Array = seen[0].detach().mean(dim=0).numpy()
        return mean

    def _through(self, inputs: Tensor, hook: Callable[..., Any]) -> Tensor:
        handle = self._linear.register_forward_hook(hook)
        try:
            logits: Tensor = self._network(inputs)
        finally:
            handle.remove()
        return logits

    def contributions(self, features: Array) -> Array:
        """Return what one example of each class would add to the gradient of the layer's bias.

        Args:
            features: (C, F), those of an example of each class.

        Returns:
            (C, C); column c is the gradient of the cross-entropy with label c.
        """
        with torch.no_grad():
            bias = 0.0 if self._linear.bias is None else self._linear.bias
            outputs = torch.from_numpy(features) @ self._linear.weight.T + bias
        outputs.requires_grad_()
        with torch.enable_grad():
            dummies = torch.zeros(len(features), *self._input_shape, dtype=outputs.dtype)
            logits = self._through(dummies, lambda *_: outputs)
            loss = cross_entropy(logits, torch.arange(len(features)), reduction="sum")
        columns: Array = torch.autograd.grad(loss, outputs)[0].numpy().T
        return columns


def _occurring(weight_gradient: Array, certain: npt.NDArray[np.bool_], batch_size: int) -> list[int]:
    """Return the classes that occur, clearest first; none where the rows tell nothing."""
    from scipy.optimize import linprog  # a third of a second, and few runs reveal labels

    num_classes = len(weight_gradient)
    left, singular, _ = np.linalg.svd(weight_gradient, full_matrices=False)
    rank = min(batch_size, int((singular > _NOISE * singular[0]).sum()))
    if rank >= num_classes - 1:  # every class could be told apart from the others
        return []
    rows = left[:, :rank]
    violations = np.where(certain, -1.0, np.inf)
    for label in np.flatnonzero(~certain) if certain.sum() < batch_size else ():
        # is there a direction with -1 at the label and (almost) nothing negative elsewhere? Minimise the violation.
        others = np.delete(rows, label, axis=0)
        solution = linprog(
            np.append(np.zeros(rank), 1.0),
            A_ub=np.hstack([-others, -np.ones((num_classes - 1, 1))]),
            b_ub=np.zeros(num_classes - 1),
            A_eq=np.append(rows[label], 0.0)[None],
            b_eq=[-1.0],
            bounds=[(None, None)] * rank + [(0.0, None)],
        )
        if solution.status == 0:
            violations[label] = solution.fun
    order = violations.argsort(kind="stable")
    return [int(label) for label in order if violations[label] < _SLACK]


def _estimates(layer: _LastLayer, batch_size: int, occurring: Sequence[int]) -> Array:
    """Return (C,) how often each class occurs, not yet whole; 0 for all but those that may occur."""
    from scipy.optimize import nnls

    weights, biases = layer.weight_gradient, layer.bias_gradient
    features = np.tile(biases @ weights / (biases @ biases + 1e-300), (len(biases), 1))  # if all had the same ones
    own = [label for label in occurring if biases[label] < 0]
    features[own] = weights[own] / biases[own, None]
    # the mean contribution is the observed gradient, and there are batch_size examples
    equations = np.vstack([layer.contributions(features), np.ones(len(biases))])[:, list(occurring)]
    estimates = np.zeros(len(biases))
    estimates[list(occurring)], _ = nnls(equations, np.append(batch_size * biases, batch_size))
    return estimates


def _whole(estimates: Array, total: int, occurring: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return whole counts with the given sum: first one for each class that occurs, if any is known to."""
    counts = np.zeros(len(estimates), dtype=np.int64)
    counts[list(occurring[:total])] = 1
    open_to = np.isin(np.arange(len(estimates)), occurring) if occurring else np.ones(len(estimates), dtype=bool)
    while counts.sum() < total:  # the next goes to the class that is furthest behind its estimate
        counts[np.where(open_to, estimates - counts, -np.inf).argmax()] += 1
    return counts
