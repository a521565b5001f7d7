"""Rebuilding training data from what a server sees. No Flower here."""

import inspect
from typing import TYPE_CHECKING, Any

from flsec._lazy import export_lazily
from flsec.parameters import parameters_of
from flsec.registry import Registry

_FORM = {"model", "gradients", "input_shape", "num_classes", "seed", "batch_size", "labels", "local_steps"}


def _is_inversion(member: Any) -> bool:
    return inspect.isfunction(member) and set(parameters_of(member)) >= _FORM


INVERSIONS = Registry("inversion", __name__, _is_inversion)

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.reconstruction.analytic_inverse import analytic_inverse as analytic_inverse
    from flsec.reconstruction.dlg import deep_leakage as deep_leakage
    from flsec.reconstruction.invert_gradients import invert_gradients as invert_gradients
    from flsec.reconstruction.invert_observation import invert_observation as invert_observation
    from flsec.reconstruction.invert_update import InvertedUpdates as InvertedUpdates
    from flsec.reconstruction.invert_update import invert_update as invert_update
    from flsec.reconstruction.labels import RevealedLabels as RevealedLabels
    from flsec.reconstruction.labels import reveal_labels as reveal_labels
    from flsec.reconstruction.multi_step import LocalSteps as LocalSteps
    from flsec.reconstruction.observation import Observation as Observation
    from flsec.reconstruction.result import Reconstruction as Reconstruction

__all__ = [
    "INVERSIONS",
    "InvertedUpdates",
    "LocalSteps",
    "Observation",
    "Reconstruction",
    "RevealedLabels",
    "analytic_inverse",
    "deep_leakage",
    "invert_gradients",
    "invert_observation",
    "invert_update",
    "reveal_labels",
]

export_lazily(
    __name__,
    {
        "InvertedUpdates": "invert_update",
        "LocalSteps": "multi_step",
        "Observation": "observation",
        "Reconstruction": "result",
        "RevealedLabels": "labels",
        "analytic_inverse": "analytic_inverse",
        "deep_leakage": "dlg",
        "invert_gradients": "invert_gradients",
        "invert_observation": "invert_observation",
        "invert_update": "invert_update",
        "reveal_labels": "labels",
    },
)
# End of exports.
