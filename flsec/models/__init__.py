"""The papers' networks, each in one place.

Every model is an ``nn.Module`` whose constructor takes ``input_shape`` and ``num_classes`` and then its own keyword
parameters, all with defaults; it maps a batch (n, *input_shape) to logits (n, num_classes).
"""

from typing import TYPE_CHECKING, Any

from flsec._lazy import export_lazily
from flsec.registry import Registry


def _is_model(member: Any) -> bool:
    from torch import nn

    return isinstance(member, type) and issubclass(member, nn.Module)


MODELS = Registry("model", __name__, _is_model, "a subclass of torch.nn.Module")

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.models.bi_lstm import BiLSTM as BiLSTM
    from flsec.models.build import build_model as build_model
    from flsec.models.causal_model import CausalModel as CausalModel
    from flsec.models.darts_cell import DARTSCell as DARTSCell
    from flsec.models.dlg_lenet import DLGLeNet as DLGLeNet
    from flsec.models.embedding_classifier import EmbeddingClassifier as EmbeddingClassifier
    from flsec.models.fedinv_cnn import FedInvCNN as FedInvCNN
    from flsec.models.fedinv_fcn import FedInvFCN as FedInvFCN
    from flsec.models.femnist_cnn import FemnistCNN as FemnistCNN
    from flsec.models.lenet import LeNet as LeNet
    from flsec.models.lstm import LSTM as LSTM
    from flsec.models.mlp import MLP as MLP
    from flsec.models.mlp_gan import MLPGAN as MLPGAN
    from flsec.models.resnet import ResNet as ResNet
    from flsec.models.resnet9 import ResNet9 as ResNet9
    from flsec.models.resnet101_ln import ResNet101LN as ResNet101LN
    from flsec.models.resnet_gn import ResNetGN as ResNetGN
    from flsec.models.sequence_classifier import SequenceClassifier as SequenceClassifier
    from flsec.models.siren_cifar_cnn import SirenCifarCNN as SirenCifarCNN
    from flsec.models.siren_cnn import SirenCNN as SirenCNN
    from flsec.models.softmax import Softmax as Softmax
    from flsec.models.torchvision_model import TorchvisionModel as TorchvisionModel
    from flsec.models.vgg11 import VGG11 as VGG11

__all__ = [
    "LSTM",
    "MLP",
    "MLPGAN",
    "MODELS",
    "VGG11",
    "BiLSTM",
    "CausalModel",
    "DARTSCell",
    "DLGLeNet",
    "EmbeddingClassifier",
    "FedInvCNN",
    "FedInvFCN",
    "FemnistCNN",
    "LeNet",
    "ResNet",
    "ResNet9",
    "ResNet101LN",
    "ResNetGN",
    "SequenceClassifier",
    "SirenCNN",
    "SirenCifarCNN",
    "Softmax",
    "TorchvisionModel",
    "build_model",
]

export_lazily(
    __name__,
    {
        "LSTM": "lstm",
        "MLP": "mlp",
        "MLPGAN": "mlp_gan",
        "VGG11": "vgg11",
        "BiLSTM": "bi_lstm",
        "CausalModel": "causal_model",
        "DARTSCell": "darts_cell",
        "DLGLeNet": "dlg_lenet",
        "EmbeddingClassifier": "embedding_classifier",
        "FedInvCNN": "fedinv_cnn",
        "FedInvFCN": "fedinv_fcn",
        "FemnistCNN": "femnist_cnn",
        "LeNet": "lenet",
        "ResNet": "resnet",
        "ResNet9": "resnet9",
        "ResNet101LN": "resnet101_ln",
        "ResNetGN": "resnet_gn",
        "SequenceClassifier": "sequence_classifier",
        "SirenCNN": "siren_cnn",
        "SirenCifarCNN": "siren_cifar_cnn",
        "Softmax": "softmax",
        "TorchvisionModel": "torchvision_model",
        "build_model": "build",
    },
)
# End of exports.
