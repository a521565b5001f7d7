"""What a run is judged by."""

from typing import TYPE_CHECKING

from flsec._lazy import export_lazily

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.metrics.accuracy import accuracy as accuracy
    from flsec.metrics.accuracy import per_class_accuracy as per_class_accuracy
    from flsec.metrics.attack_success import attack_success_rate as attack_success_rate
    from flsec.metrics.attack_success import source_to_target_rate as source_to_target_rate
    from flsec.metrics.certified_radius import SOFTMAX_LIPSCHITZ as SOFTMAX_LIPSCHITZ
    from flsec.metrics.certified_radius import certified_radius as certified_radius
    from flsec.metrics.certified_radius import certified_radius_closed_form as certified_radius_closed_form
    from flsec.metrics.certified_radius import certified_radius_of_run as certified_radius_of_run
    from flsec.metrics.certified_radius import corruption_bound as corruption_bound
    from flsec.metrics.certified_radius import sparsity_gap_bound as sparsity_gap_bound
    from flsec.metrics.certified_smoothing import Certificate as Certificate
    from flsec.metrics.certified_smoothing import VoteBounds as VoteBounds
    from flsec.metrics.certified_smoothing import certified_accuracy as certified_accuracy
    from flsec.metrics.certified_smoothing import certified_backdoor_radius as certified_backdoor_radius
    from flsec.metrics.certified_smoothing import certify_model as certify_model
    from flsec.metrics.certified_smoothing import logistic_lipschitz as logistic_lipschitz
    from flsec.metrics.certified_smoothing import noise_contraction as noise_contraction
    from flsec.metrics.certified_smoothing import smoothed_votes as smoothed_votes
    from flsec.metrics.certified_smoothing import vote_bounds as vote_bounds
    from flsec.metrics.confidence import misclassification_confidence as misclassification_confidence
    from flsec.metrics.detection import Detection as Detection
    from flsec.metrics.detection import detection as detection
    from flsec.metrics.matching import ReconstructionScores as ReconstructionScores
    from flsec.metrics.matching import Similarity as Similarity
    from flsec.metrics.matching import match_examples as match_examples
    from flsec.metrics.matching import reconstruction_scores as reconstruction_scores
    from flsec.metrics.oif import outsized_impact_factor as outsized_impact_factor
    from flsec.metrics.paired import cost_of_defense as cost_of_defense
    from flsec.metrics.paired import damage as damage
    from flsec.metrics.paired import l1_distance as l1_distance
    from flsec.metrics.psnr import mse as mse
    from flsec.metrics.psnr import psnr as psnr
    from flsec.metrics.ssim import ssim as ssim

__all__ = [
    "SOFTMAX_LIPSCHITZ",
    "Certificate",
    "Detection",
    "ReconstructionScores",
    "Similarity",
    "VoteBounds",
    "accuracy",
    "attack_success_rate",
    "certified_accuracy",
    "certified_backdoor_radius",
    "certified_radius",
    "certified_radius_closed_form",
    "certified_radius_of_run",
    "certify_model",
    "corruption_bound",
    "cost_of_defense",
    "damage",
    "detection",
    "l1_distance",
    "logistic_lipschitz",
    "match_examples",
    "misclassification_confidence",
    "mse",
    "noise_contraction",
    "outsized_impact_factor",
    "per_class_accuracy",
    "psnr",
    "reconstruction_scores",
    "smoothed_votes",
    "source_to_target_rate",
    "sparsity_gap_bound",
    "ssim",
    "vote_bounds",
]

export_lazily(
    __name__,
    {
        "SOFTMAX_LIPSCHITZ": "certified_radius",
        "Certificate": "certified_smoothing",
        "Detection": "detection",
        "ReconstructionScores": "matching",
        "Similarity": "matching",
        "VoteBounds": "certified_smoothing",
        "accuracy": "accuracy",
        "attack_success_rate": "attack_success",
        "certified_accuracy": "certified_smoothing",
        "certified_backdoor_radius": "certified_smoothing",
        "certified_radius": "certified_radius",
        "certified_radius_closed_form": "certified_radius",
        "certified_radius_of_run": "certified_radius",
        "certify_model": "certified_smoothing",
        "corruption_bound": "certified_radius",
        "cost_of_defense": "paired",
        "damage": "paired",
        "detection": "detection",
        "l1_distance": "paired",
        "logistic_lipschitz": "certified_smoothing",
        "match_examples": "matching",
        "misclassification_confidence": "confidence",
        "mse": "psnr",
        "noise_contraction": "certified_smoothing",
        "outsized_impact_factor": "oif",
        "per_class_accuracy": "accuracy",
        "psnr": "psnr",
        "reconstruction_scores": "matching",
        "smoothed_votes": "certified_smoothing",
        "source_to_target_rate": "attack_success",
        "sparsity_gap_bound": "certified_radius",
        "ssim": "ssim",
        "vote_bounds": "certified_smoothing",
    },
)
# End of exports.
