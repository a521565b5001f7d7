"""Help of commands, with what each argument is."""

import inspect
import typing
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["Group"]


class Group(TyperGroup):
    """Commands whose help says what each argument is: newer clicks set aside what Typer was told of them."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name, its arguments with their help."""
        command: Any = super().get_command(ctx, cmd_name)
        hints = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True) if command else {}
        for parameter in command.params if command else ():
            said = [info.help for info in typing.get_args(hints.get(parameter.name)) if _is_argument(info)]
            if said and not getattr(parameter, "help", None):
                parameter.help = said[0]
        return command


def _is_argument(info: Any) -> bool:
    return isinstance(info, typer.models.ArgumentInfo)
