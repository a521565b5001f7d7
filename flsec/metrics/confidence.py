from torch import Tensor

from flsec._calls import explained
from flsec.errors import ConfigError

__all__ = ["misclassification_confidence"]


@explained
def misclassification_confidence(logits: Tensor, targets: Tensor) -> float:
    """Return how sure a model is of the labels that an attacker wants: the mean of their probabilities.

    Args:
        logits: (n, C) outputs of the model for the attacker's samples, before the softmax; or logarithms of
            probabilities, which the softmax leaves as they are.
        targets: (n,) int64, the label that the attacker wants for each sample.

    Returns:
        A number in [0, 1]; 1/C for a model that knows nothing.

    Raises:
        ConfigError: no samples, shapes that do not match, or a label that is none of the C classes.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 9.0], [0.0, 0.0]])  # sure, and undecided
        >>> round(misclassification_confidence(logits, torch.tensor([1, 1])), 4)
        0.7499

    Source: Bhagoji et al., "Analyzing Federated Learning through an Adversarial Lens", ICML 2019, Sec. 3 ("confidence
    of the malicious objective").
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or not len(targets):
        raise ConfigError(
            "misclassification_confidence needs (n, C) logits and (n,) targets, n at least 1; got "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}."
        )
    if int(targets.min()) < 0 or int(targets.max()) >= logits.shape[1]:
        raise ConfigError(
            f"misclassification_confidence: targets must lie in 0 to {logits.shape[1] - 1}; got "
            f"{int(targets.min())} to {int(targets.max())}."
        )
    probabilities = logits.double().softmax(dim=1)
    return float(probabilities.gather(1, targets[:, None].to(logits.device)).mean())
