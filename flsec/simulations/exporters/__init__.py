"""Where a run's numbers can also go, one class a file: `output: {log_to: tensorboard}`."""

from typing import TYPE_CHECKING

from flsec._lazy import export_lazily

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.simulations.exporters.mlflow import MLflow as MLflow
    from flsec.simulations.exporters.tensorboard import TensorBoard as TensorBoard
    from flsec.simulations.exporters.wandb import WandB as WandB

__all__ = [
    "MLflow",
    "TensorBoard",
    "WandB",
]

export_lazily(
    __name__,
    {
        "MLflow": "mlflow",
        "TensorBoard": "tensorboard",
        "WandB": "wandb",
    },
)
# End of exports.
