"""The exceptions that a user can catch."""

__all__ = ["ConfigError", "NoProgressError"]


class ConfigError(ValueError):
    """A setting that cannot work: says what is wrong, where, the rule it breaks and a value that would do."""


class NoProgressError(RuntimeError):
    """So many rounds in a row gave no new model (``patience``) that going on would only hide why; says the reasons."""
