"""How a run ends that the user stops."""

__all__ = ["Interrupted"]


class Interrupted(Exception):
    """The user asked the run to stop."""
