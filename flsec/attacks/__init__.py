"""Mathematics of attacks: pure functions on labels, images and updates. No Flower here."""

from typing import TYPE_CHECKING

from flsec._lazy import export_lazily

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.attacks.a3fl import OptimisedTrigger as OptimisedTrigger
    from flsec.attacks.a3fl import adapted_trigger as adapted_trigger
    from flsec.attacks.a3fl import patch_mask as patch_mask
    from flsec.attacks.adam_free_rider import adam_free_rider as adam_free_rider
    from flsec.attacks.adam_free_rider import moving_squares as moving_squares
    from flsec.attacks.adaptive_line_search import LineSearch as LineSearch
    from flsec.attacks.adaptive_line_search import line_search as line_search
    from flsec.attacks.adaptive_pool import PoolResult as PoolResult
    from flsec.attacks.adaptive_pool import adaptive_pool as adaptive_pool
    from flsec.attacks.adversaries import Adversaries as Adversaries
    from flsec.attacks.agr_tailored import KnownRule as KnownRule
    from flsec.attacks.agr_tailored import TailoredUpload as TailoredUpload
    from flsec.attacks.agr_tailored import agr_tailored as agr_tailored
    from flsec.attacks.agr_tailored import largest_damage as largest_damage
    from flsec.attacks.alie import alie as alie
    from flsec.attacks.alie import alie_z as alie_z
    from flsec.attacks.back_gradient import back_gradient as back_gradient
    from flsec.attacks.back_gradient import optimised_poison as optimised_poison
    from flsec.attacks.badnets import badnets_indices as badnets_indices
    from flsec.attacks.chameleon import chameleon as chameleon
    from flsec.attacks.chameleon import classifier_of as classifier_of
    from flsec.attacks.chameleon import contrastive_loss as contrastive_loss
    from flsec.attacks.class_flipping import flip_classes as flip_classes
    from flsec.attacks.cohort_view import CohortView as CohortView
    from flsec.attacks.cohort_view import Rehearsal as Rehearsal
    from flsec.attacks.constrained_deviation import half_angle_cosine as half_angle_cosine
    from flsec.attacks.constrained_deviation import most_hostile as most_hostile
    from flsec.attacks.dba import DistributedTrigger as DistributedTrigger
    from flsec.attacks.dba import parts_held as parts_held
    from flsec.attacks.distance_penalty import DistancePenalty as DistancePenalty
    from flsec.attacks.distance_penalty import penalised_gradients as penalised_gradients
    from flsec.attacks.edge_case_backdoor import edge_case_indices as edge_case_indices
    from flsec.attacks.edge_case_backdoor import split_held_out as split_held_out
    from flsec.attacks.gaussian_attack import gaussian_attack as gaussian_attack
    from flsec.attacks.ipm import ipm as ipm
    from flsec.attacks.krum_attack import KrumAttackFactor as KrumAttackFactor
    from flsec.attacks.krum_attack import krum_attack_factor as krum_attack_factor
    from flsec.attacks.krum_attack import krum_attack_factor_partial as krum_attack_factor_partial
    from flsec.attacks.label_flipping import flip_labels as flip_labels
    from flsec.attacks.lazy_worker import lazy_worker as lazy_worker
    from flsec.attacks.mimic import mimicked_row as mimicked_row
    from flsec.attacks.min_max import min_max as min_max
    from flsec.attacks.min_sum import min_sum as min_sum
    from flsec.attacks.minimizing_distance_backdoor import clip_to_range as clip_to_range
    from flsec.attacks.minimizing_distance_backdoor import minimizing_distance as minimizing_distance
    from flsec.attacks.model_replacement import model_replacement as model_replacement
    from flsec.attacks.model_replacement import replacement_boost as replacement_boost
    from flsec.attacks.neurotoxin import neurotoxin as neurotoxin
    from flsec.attacks.neurotoxin import rarely_used as rarely_used
    from flsec.attacks.phrase_backdoor import end_in_phrase as end_in_phrase
    from flsec.attacks.phrase_backdoor import phrase_labels as phrase_labels
    from flsec.attacks.projected_gradient import projected_gradient as projected_gradient
    from flsec.attacks.projected_gradient import wrong_labels as wrong_labels
    from flsec.attacks.projection import project_upload as project_upload
    from flsec.attacks.random_attack import random_attack as random_attack
    from flsec.attacks.sign_flipping import sign_flipping as sign_flipping
    from flsec.attacks.targeted_poisoning import alternating_poisoning as alternating_poisoning
    from flsec.attacks.targeted_poisoning import choose_targets as choose_targets
    from flsec.attacks.token_trigger import TokenTrigger as TokenTrigger
    from flsec.attacks.triggers import BlendedTrigger as BlendedTrigger
    from flsec.attacks.triggers import FeatureTrigger as FeatureTrigger
    from flsec.attacks.triggers import SinusoidalTrigger as SinusoidalTrigger
    from flsec.attacks.triggers import Trigger as Trigger
    from flsec.attacks.triggers import triggered_test_set as triggered_test_set
    from flsec.attacks.trimmed_mean_attack import draw_between as draw_between
    from flsec.attacks.trimmed_mean_attack import trimmed_mean_attack_range as trimmed_mean_attack_range
    from flsec.attacks.trimmed_mean_attack import trimmed_mean_attack_range_partial as trimmed_mean_attack_range_partial
    from flsec.attacks.zero_attack import zero_attack as zero_attack

__all__ = [
    "Adversaries",
    "BlendedTrigger",
    "CohortView",
    "DistancePenalty",
    "DistributedTrigger",
    "FeatureTrigger",
    "KnownRule",
    "KrumAttackFactor",
    "LineSearch",
    "OptimisedTrigger",
    "PoolResult",
    "Rehearsal",
    "SinusoidalTrigger",
    "TailoredUpload",
    "TokenTrigger",
    "Trigger",
    "adam_free_rider",
    "adapted_trigger",
    "adaptive_pool",
    "agr_tailored",
    "alie",
    "alie_z",
    "alternating_poisoning",
    "back_gradient",
    "badnets_indices",
    "chameleon",
    "choose_targets",
    "classifier_of",
    "clip_to_range",
    "contrastive_loss",
    "draw_between",
    "edge_case_indices",
    "end_in_phrase",
    "flip_classes",
    "flip_labels",
    "gaussian_attack",
    "half_angle_cosine",
    "ipm",
    "krum_attack_factor",
    "krum_attack_factor_partial",
    "largest_damage",
    "lazy_worker",
    "line_search",
    "mimicked_row",
    "min_max",
    "min_sum",
    "minimizing_distance",
    "model_replacement",
    "most_hostile",
    "moving_squares",
    "neurotoxin",
    "optimised_poison",
    "parts_held",
    "patch_mask",
    "penalised_gradients",
    "phrase_labels",
    "project_upload",
    "projected_gradient",
    "random_attack",
    "rarely_used",
    "replacement_boost",
    "sign_flipping",
    "split_held_out",
    "triggered_test_set",
    "trimmed_mean_attack_range",
    "trimmed_mean_attack_range_partial",
    "wrong_labels",
    "zero_attack",
]

export_lazily(
    __name__,
    {
        "Adversaries": "adversaries",
        "BlendedTrigger": "triggers",
        "CohortView": "cohort_view",
        "DistancePenalty": "distance_penalty",
        "DistributedTrigger": "dba",
        "FeatureTrigger": "triggers",
        "KnownRule": "agr_tailored",
        "KrumAttackFactor": "krum_attack",
        "LineSearch": "adaptive_line_search",
        "OptimisedTrigger": "a3fl",
        "PoolResult": "adaptive_pool",
        "Rehearsal": "cohort_view",
        "SinusoidalTrigger": "triggers",
        "TailoredUpload": "agr_tailored",
        "TokenTrigger": "token_trigger",
        "Trigger": "triggers",
        "adam_free_rider": "adam_free_rider",
        "adapted_trigger": "a3fl",
        "adaptive_pool": "adaptive_pool",
        "agr_tailored": "agr_tailored",
        "alie": "alie",
        "alie_z": "alie",
        "alternating_poisoning": "targeted_poisoning",
        "back_gradient": "back_gradient",
        "badnets_indices": "badnets",
        "chameleon": "chameleon",
        "choose_targets": "targeted_poisoning",
        "classifier_of": "chameleon",
        "clip_to_range": "minimizing_distance_backdoor",
        "contrastive_loss": "chameleon",
        "draw_between": "trimmed_mean_attack",
        "edge_case_indices": "edge_case_backdoor",
        "end_in_phrase": "phrase_backdoor",
        "flip_classes": "class_flipping",
        "flip_labels": "label_flipping",
        "gaussian_attack": "gaussian_attack",
        "half_angle_cosine": "constrained_deviation",
        "ipm": "ipm",
        "krum_attack_factor": "krum_attack",
        "krum_attack_factor_partial": "krum_attack",
        "largest_damage": "agr_tailored",
        "lazy_worker": "lazy_worker",
        "line_search": "adaptive_line_search",
        "mimicked_row": "mimic",
        "min_max": "min_max",
        "min_sum": "min_sum",
        "minimizing_distance": "minimizing_distance_backdoor",
        "model_replacement": "model_replacement",
        "most_hostile": "constrained_deviation",
        "moving_squares": "adam_free_rider",
        "neurotoxin": "neurotoxin",
        "optimised_poison": "back_gradient",
        "parts_held": "dba",
        "patch_mask": "a3fl",
        "penalised_gradients": "distance_penalty",
        "phrase_labels": "phrase_backdoor",
        "project_upload": "projection",
        "projected_gradient": "projected_gradient",
        "random_attack": "random_attack",
        "rarely_used": "neurotoxin",
        "replacement_boost": "model_replacement",
        "sign_flipping": "sign_flipping",
        "split_held_out": "edge_case_backdoor",
        "triggered_test_set": "triggers",
        "trimmed_mean_attack_range": "trimmed_mean_attack",
        "trimmed_mean_attack_range_partial": "trimmed_mean_attack",
        "wrong_labels": "projected_gradient",
        "zero_attack": "zero_attack",
    },
)
# End of exports.
