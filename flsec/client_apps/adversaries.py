"""Who attacks and when: beside the attacks that take it."""

from flsec.attacks.adversaries import Adversaries

__all__ = ["Adversaries"]
