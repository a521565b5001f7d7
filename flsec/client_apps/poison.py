"""How training data are poisoned: lazily, and never by a change to the caller's data set."""

from flsec.client_apps._client_data import poisoned
from flsec.data._poison import Poison

__all__ = ["Poison", "poisoned"]
