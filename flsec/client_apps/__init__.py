"""The client face: one NumPyClient decorator per attack, and ready ClientApps.

``@LabelFlipping(pairs=[(3, 9)])`` decorates a NumPyClient class; ``SignFlipping(scale=4.0)(client)`` wraps an instance;
``ClientApp(client_fn, mods=[ModelReplacement(scale=10.0).mod])`` attacks without touching the client.
"""

from typing import TYPE_CHECKING, Any

from flsec._lazy import export_lazily
from flsec.registry import Registry


def _is_attack(member: Any) -> bool:
    from flsec.client_apps.base import Attack

    return isinstance(member, type) and issubclass(member, Attack) and member is not Attack


ATTACKS = Registry("attack", __name__, _is_attack, "a subclass of flsec.client_apps.Attack")

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.client_apps.a3fl import A3FL as A3FL
    from flsec.client_apps.adam_free_rider import AdamFreeRider as AdamFreeRider
    from flsec.client_apps.adaptive_line_search import AdaptiveLineSearch as AdaptiveLineSearch
    from flsec.client_apps.adaptive_pool import AdaptivePool as AdaptivePool
    from flsec.client_apps.adaptive_top_k import AdaptiveTopK as AdaptiveTopK
    from flsec.client_apps.adversaries import Adversaries as Adversaries
    from flsec.client_apps.agr_tailored import AGRTailored as AGRTailored
    from flsec.client_apps.alie import ALIE as ALIE
    from flsec.client_apps.app import numpy_client_app as numpy_client_app
    from flsec.client_apps.back_gradient import BackGradient as BackGradient
    from flsec.client_apps.badnets import BadNets as BadNets
    from flsec.client_apps.base import Attack as Attack
    from flsec.client_apps.base import AttackContext as AttackContext
    from flsec.client_apps.base import ClientDecorator as ClientDecorator
    from flsec.client_apps.base import Knowledge as Knowledge
    from flsec.client_apps.base import Predict as Predict
    from flsec.client_apps.base import forms_of as forms_of
    from flsec.client_apps.blended_backdoor import BlendedBackdoor as BlendedBackdoor
    from flsec.client_apps.chameleon import Chameleon as Chameleon
    from flsec.client_apps.class_flipping import ClassFlipping as ClassFlipping
    from flsec.client_apps.client_half import ClientHalf as ClientHalf
    from flsec.client_apps.client_state import ClientState as ClientState
    from flsec.client_apps.client_state import check_states as check_states
    from flsec.client_apps.client_state import prune_states as prune_states
    from flsec.client_apps.client_state import state_folder as state_folder
    from flsec.client_apps.colluding import Colluding as Colluding
    from flsec.client_apps.constrained_deviation import ConstrainedDeviation as ConstrainedDeviation
    from flsec.client_apps.dba import DBA as DBA
    from flsec.client_apps.edge_case_backdoor import EdgeCaseBackdoor as EdgeCaseBackdoor
    from flsec.client_apps.false_alarm import FalseAlarm as FalseAlarm
    from flsec.client_apps.fednova_client import FedNovaClient as FedNovaClient
    from flsec.client_apps.fednova_client import fednova_client as fednova_client
    from flsec.client_apps.gaussian_attack import GaussianAttack as GaussianAttack
    from flsec.client_apps.ipm import IPM as IPM
    from flsec.client_apps.krum_attack import KrumAttack as KrumAttack
    from flsec.client_apps.label_flipping import LabelFlipping as LabelFlipping
    from flsec.client_apps.lazy_worker import LazyWorker as LazyWorker
    from flsec.client_apps.mimic import Mimic as Mimic
    from flsec.client_apps.min_max import MinMax as MinMax
    from flsec.client_apps.min_sum import MinSum as MinSum
    from flsec.client_apps.minimizing_distance_backdoor import MinimizingDistanceBackdoor as MinimizingDistanceBackdoor
    from flsec.client_apps.model_replacement import ModelReplacement as ModelReplacement
    from flsec.client_apps.neurotoxin import Neurotoxin as Neurotoxin
    from flsec.client_apps.noisy_client import NoisyClient as NoisyClient
    from flsec.client_apps.noisy_client import noisy_client as noisy_client
    from flsec.client_apps.optimised_alie import OptimisedALIE as OptimisedALIE
    from flsec.client_apps.optimised_ipm import OptimisedIPM as OptimisedIPM
    from flsec.client_apps.partition import tells_partition as tells_partition
    from flsec.client_apps.phrase_backdoor import PhraseBackdoor as PhraseBackdoor
    from flsec.client_apps.poison import Poison as Poison
    from flsec.client_apps.poison import poisoned as poisoned
    from flsec.client_apps.poisoned_dataset import PoisonedDataset as PoisonedDataset
    from flsec.client_apps.projected_gradient import ProjectedGradient as ProjectedGradient
    from flsec.client_apps.random_attack import RandomAttack as RandomAttack
    from flsec.client_apps.rsa_client import RSAClient as RSAClient
    from flsec.client_apps.rsa_client import rsa_client as rsa_client
    from flsec.client_apps.scaffold_client import ScaffoldClient as ScaffoldClient
    from flsec.client_apps.scaffold_client import scaffold_client as scaffold_client
    from flsec.client_apps.semantic_backdoor import SemanticBackdoor as SemanticBackdoor
    from flsec.client_apps.sign_flipping import SignFlipping as SignFlipping
    from flsec.client_apps.sinusoidal_backdoor import SinusoidalBackdoor as SinusoidalBackdoor
    from flsec.client_apps.siren_client import SirenClient as SirenClient
    from flsec.client_apps.siren_client import siren_client as siren_client
    from flsec.client_apps.soteria_client import SoteriaClient as SoteriaClient
    from flsec.client_apps.soteria_client import soteria_client as soteria_client
    from flsec.client_apps.targeted_poisoning import TargetedPoisoning as TargetedPoisoning
    from flsec.client_apps.torch_client import TorchClient as TorchClient
    from flsec.client_apps.trimmed_mean_attack import TrimmedMeanAttack as TrimmedMeanAttack
    from flsec.client_apps.wbc_client import WBCClient as WBCClient
    from flsec.client_apps.wbc_client import wbc_client as wbc_client
    from flsec.client_apps.zero_attack import ZeroAttack as ZeroAttack

__all__ = [
    "A3FL",
    "ALIE",
    "ATTACKS",
    "DBA",
    "IPM",
    "AGRTailored",
    "AdamFreeRider",
    "AdaptiveLineSearch",
    "AdaptivePool",
    "AdaptiveTopK",
    "Adversaries",
    "Attack",
    "AttackContext",
    "BackGradient",
    "BadNets",
    "BlendedBackdoor",
    "Chameleon",
    "ClassFlipping",
    "ClientDecorator",
    "ClientHalf",
    "ClientState",
    "Colluding",
    "ConstrainedDeviation",
    "EdgeCaseBackdoor",
    "FalseAlarm",
    "FedNovaClient",
    "GaussianAttack",
    "Knowledge",
    "KrumAttack",
    "LabelFlipping",
    "LazyWorker",
    "Mimic",
    "MinMax",
    "MinSum",
    "MinimizingDistanceBackdoor",
    "ModelReplacement",
    "Neurotoxin",
    "NoisyClient",
    "OptimisedALIE",
    "OptimisedIPM",
    "PhraseBackdoor",
    "Poison",
    "PoisonedDataset",
    "Predict",
    "ProjectedGradient",
    "RSAClient",
    "RandomAttack",
    "ScaffoldClient",
    "SemanticBackdoor",
    "SignFlipping",
    "SinusoidalBackdoor",
    "SirenClient",
    "SoteriaClient",
    "TargetedPoisoning",
    "TorchClient",
    "TrimmedMeanAttack",
    "WBCClient",
    "ZeroAttack",
    "check_states",
    "fednova_client",
    "forms_of",
    "noisy_client",
    "numpy_client_app",
    "poisoned",
    "prune_states",
    "rsa_client",
    "scaffold_client",
    "siren_client",
    "soteria_client",
    "state_folder",
    "tells_partition",
    "wbc_client",
]

export_lazily(
    __name__,
    {
        "A3FL": "a3fl",
        "ALIE": "alie",
        "DBA": "dba",
        "IPM": "ipm",
        "AGRTailored": "agr_tailored",
        "AdamFreeRider": "adam_free_rider",
        "AdaptiveLineSearch": "adaptive_line_search",
        "AdaptivePool": "adaptive_pool",
        "AdaptiveTopK": "adaptive_top_k",
        "Adversaries": "adversaries",
        "Attack": "base",
        "AttackContext": "base",
        "BackGradient": "back_gradient",
        "BadNets": "badnets",
        "BlendedBackdoor": "blended_backdoor",
        "Chameleon": "chameleon",
        "ClassFlipping": "class_flipping",
        "ClientDecorator": "base",
        "ClientHalf": "client_half",
        "ClientState": "client_state",
        "Colluding": "colluding",
        "ConstrainedDeviation": "constrained_deviation",
        "EdgeCaseBackdoor": "edge_case_backdoor",
        "FalseAlarm": "false_alarm",
        "FedNovaClient": "fednova_client",
        "GaussianAttack": "gaussian_attack",
        "Knowledge": "base",
        "KrumAttack": "krum_attack",
        "LabelFlipping": "label_flipping",
        "LazyWorker": "lazy_worker",
        "Mimic": "mimic",
        "MinMax": "min_max",
        "MinSum": "min_sum",
        "MinimizingDistanceBackdoor": "minimizing_distance_backdoor",
        "ModelReplacement": "model_replacement",
        "Neurotoxin": "neurotoxin",
        "NoisyClient": "noisy_client",
        "OptimisedALIE": "optimised_alie",
        "OptimisedIPM": "optimised_ipm",
        "PhraseBackdoor": "phrase_backdoor",
        "Poison": "poison",
        "PoisonedDataset": "poisoned_dataset",
        "Predict": "base",
        "ProjectedGradient": "projected_gradient",
        "RSAClient": "rsa_client",
        "RandomAttack": "random_attack",
        "ScaffoldClient": "scaffold_client",
        "SemanticBackdoor": "semantic_backdoor",
        "SignFlipping": "sign_flipping",
        "SinusoidalBackdoor": "sinusoidal_backdoor",
        "SirenClient": "siren_client",
        "SoteriaClient": "soteria_client",
        "TargetedPoisoning": "targeted_poisoning",
        "TorchClient": "torch_client",
        "TrimmedMeanAttack": "trimmed_mean_attack",
        "WBCClient": "wbc_client",
        "ZeroAttack": "zero_attack",
        "check_states": "client_state",
        "fednova_client": "fednova_client",
        "forms_of": "base",
        "noisy_client": "noisy_client",
        "numpy_client_app": "app",
        "poisoned": "poison",
        "prune_states": "client_state",
        "rsa_client": "rsa_client",
        "scaffold_client": "scaffold_client",
        "siren_client": "siren_client",
        "soteria_client": "soteria_client",
        "state_folder": "client_state",
        "tells_partition": "partition",
        "wbc_client": "wbc_client",
    },
)
# End of exports.
