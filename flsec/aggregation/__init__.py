"""Mathematics of defenses: pure functions on an (n, d) tensor of updates. No Flower here."""

from typing import TYPE_CHECKING

from flsec._lazy import export_lazily

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.aggregation.adaptive_clipping import adaptive_max_norm as adaptive_max_norm
    from flsec.aggregation.adaptive_quantile_clipping import next_quantile_estimate as next_quantile_estimate
    from flsec.aggregation.adaptive_robust_clipping import adaptive_robust_clipping as adaptive_robust_clipping
    from flsec.aggregation.align_ins import align_ins as align_ins
    from flsec.aggregation.auror import Unit as Unit
    from flsec.aggregation.auror import auror_suspicions as auror_suspicions
    from flsec.aggregation.bucketing import bucketing as bucketing
    from flsec.aggregation.bulyan import bulyan as bulyan
    from flsec.aggregation.bulyan import bulyan_second_phase as bulyan_second_phase
    from flsec.aggregation.bulyan import bulyan_selection as bulyan_selection
    from flsec.aggregation.caf import caf as caf
    from flsec.aggregation.centered_clipping import centered_clipping as centered_clipping
    from flsec.aggregation.clipped_clustering import clipped_clustering as clipped_clustering
    from flsec.aggregation.comparative_gradient_elimination import (
        comparative_gradient_elimination as comparative_gradient_elimination,
    )
    from flsec.aggregation.count_sketch import CountSketch as CountSketch
    from flsec.aggregation.crfl import clip_model as clip_model
    from flsec.aggregation.crfl import crfl as crfl
    from flsec.aggregation.crfl import crfl_max_norm as crfl_max_norm
    from flsec.aggregation.cross_round import cross_round_similarities as cross_round_similarities
    from flsec.aggregation.deep_sight import deep_sight_accepts as deep_sight_accepts
    from flsec.aggregation.deep_sight import deep_sight_ddifs as deep_sight_ddifs
    from flsec.aggregation.deep_sight import deep_sight_energies as deep_sight_energies
    from flsec.aggregation.deep_sight import deep_sight_suspects as deep_sight_suspects
    from flsec.aggregation.diversefl import diversefl as diversefl
    from flsec.aggregation.diversefl import diversefl_scores as diversefl_scores
    from flsec.aggregation.divide_and_conquer import divide_and_conquer as divide_and_conquer
    from flsec.aggregation.fed_greed import fed_greed as fed_greed
    from flsec.aggregation.fedinv import fedinv as fedinv
    from flsec.aggregation.fedinv import fedinv_distances as fedinv_distances
    from flsec.aggregation.fedinv import fedinv_scores as fedinv_scores
    from flsec.aggregation.fednova import accumulated_steps as accumulated_steps
    from flsec.aggregation.fednova import normalising_factors as normalising_factors
    from flsec.aggregation.fetchsgd import FetchSGDState as FetchSGDState
    from flsec.aggregation.fetchsgd import SketchVariant as SketchVariant
    from flsec.aggregation.fetchsgd import fetchsgd_init as fetchsgd_init
    from flsec.aggregation.fetchsgd import fetchsgd_step as fetchsgd_step
    from flsec.aggregation.fl_detector import fl_detector_change as fl_detector_change
    from flsec.aggregation.fl_detector import fl_detector_suspects as fl_detector_suspects
    from flsec.aggregation.flame import flame as flame
    from flsec.aggregation.flanders import flanders_forecast as flanders_forecast
    from flsec.aggregation.fltrust import fltrust as fltrust
    from flsec.aggregation.fltrust import fltrust_scores as fltrust_scores
    from flsec.aggregation.flwbc import wbc_perturbation as wbc_perturbation
    from flsec.aggregation.foolsgold import foolsgold_similarities as foolsgold_similarities
    from flsec.aggregation.foolsgold import foolsgold_weights as foolsgold_weights
    from flsec.aggregation.geometric_median import geometric_median as geometric_median
    from flsec.aggregation.geometric_median import geometric_median_weights as geometric_median_weights
    from flsec.aggregation.krum import krum as krum
    from flsec.aggregation.krum import krum_scores as krum_scores
    from flsec.aggregation.lasa import lasa as lasa
    from flsec.aggregation.mean import mean as mean
    from flsec.aggregation.mean_around_median import mean_around_median as mean_around_median
    from flsec.aggregation.median import median as median
    from flsec.aggregation.median_norm_clipping import median_norm_clipping as median_norm_clipping
    from flsec.aggregation.median_of_means import median_of_means as median_of_means
    from flsec.aggregation.minimum_diameter_averaging import minimum_diameter_averaging as minimum_diameter_averaging
    from flsec.aggregation.monna import monna as monna
    from flsec.aggregation.multi_krum import multi_krum as multi_krum
    from flsec.aggregation.multi_krum import multi_krum_selection as multi_krum_selection
    from flsec.aggregation.multi_metrics import multi_metrics_scores as multi_metrics_scores
    from flsec.aggregation.nearest_neighbor_mixing import nearest_neighbor_mixing as nearest_neighbor_mixing
    from flsec.aggregation.noisy_median import noisy_upload as noisy_upload
    from flsec.aggregation.norm_clipping import norm_clipping as norm_clipping
    from flsec.aggregation.removal_rejection import removal_rejection as removal_rejection
    from flsec.aggregation.removal_rejection import removal_scores as removal_scores
    from flsec.aggregation.removal_rejection import removal_selection as removal_selection
    from flsec.aggregation.residual_reweighting import residual_reweighting as residual_reweighting
    from flsec.aggregation.residual_reweighting import residual_weights as residual_weights
    from flsec.aggregation.rfa import rfa as rfa
    from flsec.aggregation.rfa import rfa_weights as rfa_weights
    from flsec.aggregation.rflbat import rflbat as rflbat
    from flsec.aggregation.robust_learning_rate import robust_learning_rate as robust_learning_rate
    from flsec.aggregation.rsa import rsa_gradient as rsa_gradient
    from flsec.aggregation.rsa import rsa_server_step as rsa_server_step
    from flsec.aggregation.scaffold import scaffold_control as scaffold_control
    from flsec.aggregation.sign_guard import Similarity as Similarity
    from flsec.aggregation.sign_guard import sign_guard as sign_guard
    from flsec.aggregation.siren import SirenCase as SirenCase
    from flsec.aggregation.siren import SirenDecision as SirenDecision
    from flsec.aggregation.siren import siren_decision as siren_decision
    from flsec.aggregation.siren import siren_penalties as siren_penalties
    from flsec.aggregation.siren_alarm import siren_alarm as siren_alarm
    from flsec.aggregation.slsgd import slsgd as slsgd
    from flsec.aggregation.smea import smea as smea
    from flsec.aggregation.soteria import representation_and_sensitivity as representation_and_sensitivity
    from flsec.aggregation.soteria import soteria_pruned as soteria_pruned
    from flsec.aggregation.sparsefed import Coordinates as Coordinates
    from flsec.aggregation.sparsefed import Momentum as Momentum
    from flsec.aggregation.sparsefed import SparseFedState as SparseFedState
    from flsec.aggregation.sparsefed import Variant as Variant
    from flsec.aggregation.sparsefed import choose_k as choose_k
    from flsec.aggregation.sparsefed import num_coordinates as num_coordinates
    from flsec.aggregation.sparsefed import sparsefed_init as sparsefed_init
    from flsec.aggregation.sparsefed import sparsefed_step as sparsefed_step
    from flsec.aggregation.three_sigma import distances_from_center as distances_from_center
    from flsec.aggregation.three_sigma import three_sigma_bound as three_sigma_bound
    from flsec.aggregation.top_k import top_k as top_k
    from flsec.aggregation.trimmed_mean import trimmed_mean as trimmed_mean
    from flsec.aggregation.weak_dp import weak_dp as weak_dp
    from flsec.aggregation.worker_momentum import worker_momentum as worker_momentum
    from flsec.aggregation.zeno import zeno as zeno
    from flsec.aggregation.zeno import zeno_scores as zeno_scores

__all__ = [
    "Coordinates",
    "CountSketch",
    "FetchSGDState",
    "Momentum",
    "Similarity",
    "SirenCase",
    "SirenDecision",
    "SketchVariant",
    "SparseFedState",
    "Unit",
    "Variant",
    "accumulated_steps",
    "adaptive_max_norm",
    "adaptive_robust_clipping",
    "align_ins",
    "auror_suspicions",
    "bucketing",
    "bulyan",
    "bulyan_second_phase",
    "bulyan_selection",
    "caf",
    "centered_clipping",
    "choose_k",
    "clip_model",
    "clipped_clustering",
    "comparative_gradient_elimination",
    "crfl",
    "crfl_max_norm",
    "cross_round_similarities",
    "deep_sight_accepts",
    "deep_sight_ddifs",
    "deep_sight_energies",
    "deep_sight_suspects",
    "distances_from_center",
    "diversefl",
    "diversefl_scores",
    "divide_and_conquer",
    "fed_greed",
    "fedinv",
    "fedinv_distances",
    "fedinv_scores",
    "fetchsgd_init",
    "fetchsgd_step",
    "fl_detector_change",
    "fl_detector_suspects",
    "flame",
    "flanders_forecast",
    "fltrust",
    "fltrust_scores",
    "foolsgold_similarities",
    "foolsgold_weights",
    "geometric_median",
    "geometric_median_weights",
    "krum",
    "krum_scores",
    "lasa",
    "mean",
    "mean_around_median",
    "median",
    "median_norm_clipping",
    "median_of_means",
    "minimum_diameter_averaging",
    "monna",
    "multi_krum",
    "multi_krum_selection",
    "multi_metrics_scores",
    "nearest_neighbor_mixing",
    "next_quantile_estimate",
    "noisy_upload",
    "norm_clipping",
    "normalising_factors",
    "num_coordinates",
    "removal_rejection",
    "removal_scores",
    "removal_selection",
    "representation_and_sensitivity",
    "residual_reweighting",
    "residual_weights",
    "rfa",
    "rfa_weights",
    "rflbat",
    "robust_learning_rate",
    "rsa_gradient",
    "rsa_server_step",
    "scaffold_control",
    "sign_guard",
    "siren_alarm",
    "siren_decision",
    "siren_penalties",
    "slsgd",
    "smea",
    "soteria_pruned",
    "sparsefed_init",
    "sparsefed_step",
    "three_sigma_bound",
    "top_k",
    "trimmed_mean",
    "wbc_perturbation",
    "weak_dp",
    "worker_momentum",
    "zeno",
    "zeno_scores",
]

export_lazily(
    __name__,
    {
        "Coordinates": "sparsefed",
        "CountSketch": "count_sketch",
        "FetchSGDState": "fetchsgd",
        "Momentum": "sparsefed",
        "Similarity": "sign_guard",
        "SirenCase": "siren",
        "SirenDecision": "siren",
        "SketchVariant": "fetchsgd",
        "SparseFedState": "sparsefed",
        "Unit": "auror",
        "Variant": "sparsefed",
        "accumulated_steps": "fednova",
        "adaptive_max_norm": "adaptive_clipping",
        "adaptive_robust_clipping": "adaptive_robust_clipping",
        "align_ins": "align_ins",
        "auror_suspicions": "auror",
        "bucketing": "bucketing",
        "bulyan": "bulyan",
        "bulyan_second_phase": "bulyan",
        "bulyan_selection": "bulyan",
        "caf": "caf",
        "centered_clipping": "centered_clipping",
        "choose_k": "sparsefed",
        "clip_model": "crfl",
        "clipped_clustering": "clipped_clustering",
        "comparative_gradient_elimination": "comparative_gradient_elimination",
        "crfl": "crfl",
        "crfl_max_norm": "crfl",
        "cross_round_similarities": "cross_round",
        "deep_sight_accepts": "deep_sight",
        "deep_sight_ddifs": "deep_sight",
        "deep_sight_energies": "deep_sight",
        "deep_sight_suspects": "deep_sight",
        "distances_from_center": "three_sigma",
        "diversefl": "diversefl",
        "diversefl_scores": "diversefl",
        "divide_and_conquer": "divide_and_conquer",
        "fed_greed": "fed_greed",
        "fedinv": "fedinv",
        "fedinv_distances": "fedinv",
        "fedinv_scores": "fedinv",
        "fetchsgd_init": "fetchsgd",
        "fetchsgd_step": "fetchsgd",
        "fl_detector_change": "fl_detector",
        "fl_detector_suspects": "fl_detector",
        "flame": "flame",
        "flanders_forecast": "flanders",
        "fltrust": "fltrust",
        "fltrust_scores": "fltrust",
        "foolsgold_similarities": "foolsgold",
        "foolsgold_weights": "foolsgold",
        "geometric_median": "geometric_median",
        "geometric_median_weights": "geometric_median",
        "krum": "krum",
        "krum_scores": "krum",
        "lasa": "lasa",
        "mean": "mean",
        "mean_around_median": "mean_around_median",
        "median": "median",
        "median_norm_clipping": "median_norm_clipping",
        "median_of_means": "median_of_means",
        "minimum_diameter_averaging": "minimum_diameter_averaging",
        "monna": "monna",
        "multi_krum": "multi_krum",
        "multi_krum_selection": "multi_krum",
        "multi_metrics_scores": "multi_metrics",
        "nearest_neighbor_mixing": "nearest_neighbor_mixing",
        "next_quantile_estimate": "adaptive_quantile_clipping",
        "noisy_upload": "noisy_median",
        "norm_clipping": "norm_clipping",
        "normalising_factors": "fednova",
        "num_coordinates": "sparsefed",
        "removal_rejection": "removal_rejection",
        "removal_scores": "removal_rejection",
        "removal_selection": "removal_rejection",
        "representation_and_sensitivity": "soteria",
        "residual_reweighting": "residual_reweighting",
        "residual_weights": "residual_reweighting",
        "rfa": "rfa",
        "rfa_weights": "rfa",
        "rflbat": "rflbat",
        "robust_learning_rate": "robust_learning_rate",
        "rsa_gradient": "rsa",
        "rsa_server_step": "rsa",
        "scaffold_control": "scaffold",
        "sign_guard": "sign_guard",
        "siren_alarm": "siren_alarm",
        "siren_decision": "siren",
        "siren_penalties": "siren",
        "slsgd": "slsgd",
        "smea": "smea",
        "soteria_pruned": "soteria",
        "sparsefed_init": "sparsefed",
        "sparsefed_step": "sparsefed",
        "three_sigma_bound": "three_sigma",
        "top_k": "top_k",
        "trimmed_mean": "trimmed_mean",
        "wbc_perturbation": "flwbc",
        "weak_dp": "weak_dp",
        "worker_momentum": "worker_momentum",
        "zeno": "zeno",
        "zeno_scores": "zeno",
    },
)
# End of exports.
