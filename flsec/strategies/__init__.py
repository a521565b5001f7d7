"""The server face: one Flower Strategy wrapper per defense.

``Krum(FedAvg(...), num_byzantine=2)`` drops into an existing server; wrappers nest and read outside in.
"""

from typing import TYPE_CHECKING, Any

from flsec._lazy import export_lazily
from flsec.registry import Registry


def _is_defense(member: Any) -> bool:
    from flsec.strategies.adversary import Adversary
    from flsec.strategies.base import RobustStrategy

    kinds = isinstance(member, type) and issubclass(member, RobustStrategy)
    return kinds and member.place is None and not member.outermost and member not in (RobustStrategy, Adversary)


DEFENSES = Registry("defense", __name__, _is_defense, "a subclass of flsec.strategies.RobustStrategy")

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.strategies.activate_on_suspicion import ActivateOnSuspicion as ActivateOnSuspicion
    from flsec.strategies.adaptive_quantile_clipping import AdaptiveQuantileClipping as AdaptiveQuantileClipping
    from flsec.strategies.adaptive_robust_clipping import AdaptiveRobustClipping as AdaptiveRobustClipping
    from flsec.strategies.adversary import Adversary as Adversary
    from flsec.strategies.align_ins import AlignIns as AlignIns
    from flsec.strategies.audit_log import Audit as Audit
    from flsec.strategies.audit_log import AuditEntry as AuditEntry
    from flsec.strategies.audit_log import AuditLog as AuditLog
    from flsec.strategies.audit_log import read_audit as read_audit
    from flsec.strategies.auror import Auror as Auror
    from flsec.strategies.ban_list import BanList as BanList
    from flsec.strategies.base import RobustStrategy as RobustStrategy
    from flsec.strategies.bucketing import Bucketing as Bucketing
    from flsec.strategies.bulyan import Bulyan as Bulyan
    from flsec.strategies.caf import CAF as CAF
    from flsec.strategies.centered_clipping import CenteredClipping as CenteredClipping
    from flsec.strategies.clipped_clustering import ClippedClustering as ClippedClustering
    from flsec.strategies.cohort import Cohort as Cohort
    from flsec.strategies.cohort import Layout as Layout
    from flsec.strategies.comparative_gradient_elimination import (
        ComparativeGradientElimination as ComparativeGradientElimination,
    )
    from flsec.strategies.crfl import CRFL as CRFL
    from flsec.strategies.cross_round import CrossRound as CrossRound
    from flsec.strategies.deep_sight import DeepSight as DeepSight
    from flsec.strategies.defense_state import DefenseState as DefenseState
    from flsec.strategies.diversefl import DiverseFL as DiverseFL
    from flsec.strategies.divide_and_conquer import DivideAndConquer as DivideAndConquer
    from flsec.strategies.eavesdrop import Eavesdrop as Eavesdrop
    from flsec.strategies.error_rate_rejection import ErrorRateRejection as ErrorRateRejection
    from flsec.strategies.fed_greed import FedGreed as FedGreed
    from flsec.strategies.fedinv import FedInv as FedInv
    from flsec.strategies.fednova import FedNova as FedNova
    from flsec.strategies.fetchsgd import FetchSGD as FetchSGD
    from flsec.strategies.fl_detector import FLDetector as FLDetector
    from flsec.strategies.flame import Flame as Flame
    from flsec.strategies.flanders import Flanders as Flanders
    from flsec.strategies.fltrust import FLTrust as FLTrust
    from flsec.strategies.flwbc import FLWBC as FLWBC
    from flsec.strategies.foolsgold import FoolsGold as FoolsGold
    from flsec.strategies.geometric_median import GeometricMedian as GeometricMedian
    from flsec.strategies.krum import Krum as Krum
    from flsec.strategies.lasa import LASA as LASA
    from flsec.strategies.loss_function_rejection import LossFunctionRejection as LossFunctionRejection
    from flsec.strategies.mean_around_median import MeanAroundMedian as MeanAroundMedian
    from flsec.strategies.median import Median as Median
    from flsec.strategies.median_norm_clipping import MedianNormClipping as MedianNormClipping
    from flsec.strategies.median_of_means import MedianOfMeans as MedianOfMeans
    from flsec.strategies.minimum_diameter_averaging import MinimumDiameterAveraging as MinimumDiameterAveraging
    from flsec.strategies.monna import MoNNA as MoNNA
    from flsec.strategies.multi_krum import MultiKrum as MultiKrum
    from flsec.strategies.multi_metrics import MultiMetrics as MultiMetrics
    from flsec.strategies.nearest_neighbor_mixing import NearestNeighborMixing as NearestNeighborMixing
    from flsec.strategies.noisy_median import NoisyMedian as NoisyMedian
    from flsec.strategies.norm_clipping import NormClipping as NormClipping
    from flsec.strategies.oracle_sgd import OracleSGD as OracleSGD
    from flsec.strategies.partition_ids import partition_ids as partition_ids
    from flsec.strategies.prometheus_metrics import PrometheusMetrics as PrometheusMetrics
    from flsec.strategies.replies import GlobalModel as GlobalModel
    from flsec.strategies.replies import Malformed as Malformed
    from flsec.strategies.replies import Reply as Reply
    from flsec.strategies.replies import check_num_examples as check_num_examples
    from flsec.strategies.report import KeepPreviousModel as KeepPreviousModel
    from flsec.strategies.report import Quarantined as Quarantined
    from flsec.strategies.report import RoundReport as RoundReport
    from flsec.strategies.report import Threshold as Threshold
    from flsec.strategies.report import Verdict as Verdict
    from flsec.strategies.residual_reweighting import ResidualReweighting as ResidualReweighting
    from flsec.strategies.rfa import RFA as RFA
    from flsec.strategies.rflbat import RFLBAT as RFLBAT
    from flsec.strategies.robust_learning_rate import RobustLearningRate as RobustLearningRate
    from flsec.strategies.rsa import RSA as RSA
    from flsec.strategies.scaffold import Scaffold as Scaffold
    from flsec.strategies.server_optimizer import ServerOptimizer as ServerOptimizer
    from flsec.strategies.server_optimizer import defended as defended
    from flsec.strategies.server_weight_decay import ServerWeightDecay as ServerWeightDecay
    from flsec.strategies.sign_guard import SignGuard as SignGuard
    from flsec.strategies.siren import Siren as Siren
    from flsec.strategies.slsgd import SLSGD as SLSGD
    from flsec.strategies.smea import SMEA as SMEA
    from flsec.strategies.soteria import Soteria as Soteria
    from flsec.strategies.sparsefed import SparseFed as SparseFed
    from flsec.strategies.three_sigma import ThreeSigma as ThreeSigma
    from flsec.strategies.trimmed_mean import TrimmedMean as TrimmedMean
    from flsec.strategies.weak_dp import WeakDP as WeakDP
    from flsec.strategies.worker_momentum import WorkerMomentum as WorkerMomentum
    from flsec.strategies.zeno import Zeno as Zeno

__all__ = [
    "CAF",
    "CRFL",
    "DEFENSES",
    "FLWBC",
    "LASA",
    "RFA",
    "RFLBAT",
    "RSA",
    "SLSGD",
    "SMEA",
    "ActivateOnSuspicion",
    "AdaptiveQuantileClipping",
    "AdaptiveRobustClipping",
    "Adversary",
    "AlignIns",
    "Audit",
    "AuditEntry",
    "AuditLog",
    "Auror",
    "BanList",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "ClippedClustering",
    "Cohort",
    "ComparativeGradientElimination",
    "CrossRound",
    "DeepSight",
    "DefenseState",
    "DiverseFL",
    "DivideAndConquer",
    "Eavesdrop",
    "ErrorRateRejection",
    "FLDetector",
    "FLTrust",
    "FedGreed",
    "FedInv",
    "FedNova",
    "FetchSGD",
    "Flame",
    "Flanders",
    "FoolsGold",
    "GeometricMedian",
    "GlobalModel",
    "KeepPreviousModel",
    "Krum",
    "Layout",
    "LossFunctionRejection",
    "Malformed",
    "MeanAroundMedian",
    "Median",
    "MedianNormClipping",
    "MedianOfMeans",
    "MinimumDiameterAveraging",
    "MoNNA",
    "MultiKrum",
    "MultiMetrics",
    "NearestNeighborMixing",
    "NoisyMedian",
    "NormClipping",
    "OracleSGD",
    "PrometheusMetrics",
    "Quarantined",
    "Reply",
    "ResidualReweighting",
    "RobustLearningRate",
    "RobustStrategy",
    "RoundReport",
    "Scaffold",
    "ServerOptimizer",
    "ServerWeightDecay",
    "SignGuard",
    "Siren",
    "Soteria",
    "SparseFed",
    "ThreeSigma",
    "Threshold",
    "TrimmedMean",
    "Verdict",
    "WeakDP",
    "WorkerMomentum",
    "Zeno",
    "check_num_examples",
    "defended",
    "partition_ids",
    "read_audit",
]

export_lazily(
    __name__,
    {
        "CAF": "caf",
        "CRFL": "crfl",
        "FLWBC": "flwbc",
        "LASA": "lasa",
        "RFA": "rfa",
        "RFLBAT": "rflbat",
        "RSA": "rsa",
        "SLSGD": "slsgd",
        "SMEA": "smea",
        "ActivateOnSuspicion": "activate_on_suspicion",
        "AdaptiveQuantileClipping": "adaptive_quantile_clipping",
        "AdaptiveRobustClipping": "adaptive_robust_clipping",
        "Adversary": "adversary",
        "AlignIns": "align_ins",
        "Audit": "audit_log",
        "AuditEntry": "audit_log",
        "AuditLog": "audit_log",
        "Auror": "auror",
        "BanList": "ban_list",
        "Bucketing": "bucketing",
        "Bulyan": "bulyan",
        "CenteredClipping": "centered_clipping",
        "ClippedClustering": "clipped_clustering",
        "Cohort": "cohort",
        "ComparativeGradientElimination": "comparative_gradient_elimination",
        "CrossRound": "cross_round",
        "DeepSight": "deep_sight",
        "DefenseState": "defense_state",
        "DiverseFL": "diversefl",
        "DivideAndConquer": "divide_and_conquer",
        "Eavesdrop": "eavesdrop",
        "ErrorRateRejection": "error_rate_rejection",
        "FLDetector": "fl_detector",
        "FLTrust": "fltrust",
        "FedGreed": "fed_greed",
        "FedInv": "fedinv",
        "FedNova": "fednova",
        "FetchSGD": "fetchsgd",
        "Flame": "flame",
        "Flanders": "flanders",
        "FoolsGold": "foolsgold",
        "GeometricMedian": "geometric_median",
        "GlobalModel": "replies",
        "KeepPreviousModel": "report",
        "Krum": "krum",
        "Layout": "cohort",
        "LossFunctionRejection": "loss_function_rejection",
        "Malformed": "replies",
        "MeanAroundMedian": "mean_around_median",
        "Median": "median",
        "MedianNormClipping": "median_norm_clipping",
        "MedianOfMeans": "median_of_means",
        "MinimumDiameterAveraging": "minimum_diameter_averaging",
        "MoNNA": "monna",
        "MultiKrum": "multi_krum",
        "MultiMetrics": "multi_metrics",
        "NearestNeighborMixing": "nearest_neighbor_mixing",
        "NoisyMedian": "noisy_median",
        "NormClipping": "norm_clipping",
        "OracleSGD": "oracle_sgd",
        "PrometheusMetrics": "prometheus_metrics",
        "Quarantined": "report",
        "Reply": "replies",
        "ResidualReweighting": "residual_reweighting",
        "RobustLearningRate": "robust_learning_rate",
        "RobustStrategy": "base",
        "RoundReport": "report",
        "Scaffold": "scaffold",
        "ServerOptimizer": "server_optimizer",
        "ServerWeightDecay": "server_weight_decay",
        "SignGuard": "sign_guard",
        "Siren": "siren",
        "Soteria": "soteria",
        "SparseFed": "sparsefed",
        "ThreeSigma": "three_sigma",
        "Threshold": "report",
        "TrimmedMean": "trimmed_mean",
        "Verdict": "report",
        "WeakDP": "weak_dp",
        "WorkerMomentum": "worker_momentum",
        "Zeno": "zeno",
        "check_num_examples": "replies",
        "defended": "server_optimizer",
        "partition_ids": "partition_ids",
        "read_audit": "audit_log",
    },
)
# End of exports.
