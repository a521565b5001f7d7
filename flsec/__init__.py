"""Attacks, defenses and honest measurements for federated learning, as a Flower plugin.

Importing this package (or ``flsec.aggregation``, ``flsec.attacks``, ``flsec.reconstruction``) imports neither
Flower nor Ray; ``flsec.strategies``, ``flsec.client_apps`` and ``flsec.simulations`` do.
"""

from flsec._lazy import export_lazily
from flsec._meant import say_meant_modules
from flsec.errors import ConfigError

__version__ = "0.1.0"
__all__ = ["ConfigError", "__version__"]

export_lazily(__name__, {})
say_meant_modules()
