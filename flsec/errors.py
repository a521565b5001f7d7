"""The exceptions that a user can catch."""

__all__ = ["ConfigError", "NoProgressError", "SaveError"]


class ConfigError(ValueError):
    """A setting that cannot work: says what is wrong, where, the rule it breaks and a value that would do.

    Args:
        message: the sentence.
        parameter: the parameter that it is about, by its name in the signature; None if it is about none, or about
            several at once.

    Example:
        >>> ConfigError("krum: num_byzantine must be at least 0; got -1.", parameter="num_byzantine").parameter
        'num_byzantine'
    """

    def __init__(self, message: str = "", *, parameter: str | None = None):
        super().__init__(message)
        self.parameter = parameter


class NoProgressError(RuntimeError):
    """So many rounds in a row gave no new model (``patience``) that going on would only hide why; says the reasons."""


class SaveError(RuntimeError):
    """Something could not be written, as on a full disk; says what, why, and what is saved. No half file is left."""
