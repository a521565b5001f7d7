"""How attacks can be put on clients, in words: for ``flsec describe``, and for a page of the documentation.

``python -m flsec.simulations.attack_forms`` prints the page.
"""

import typing
from typing import Any

from flsec.client_apps import ATTACKS, Attack, forms_of
from flsec.client_apps.base import unbuilt
from flsec.parameters import parameters_of

__all__ = ["forms_in_words", "other_forms", "page", "table"]

_FORMS = ("decorator", "mod", "Message API", "simulation only")


def forms_in_words(attack: type[Attack]) -> list[str]:
    """Return a sentence for each form of an attack, and for each setting that changes them.

    Example:
        >>> from flsec.client_apps import SignFlipping
        >>> len(forms_in_words(SignFlipping))
        3
    """
    name, forms = attack.__name__, forms_of(attack)
    data = "; what trains passes its data through flsec.client_apps.poisoned" if _poisons_data(attack) else ""
    words = {
        "decorator": f"a decorator: @{name}(...) above a NumPyClient class, {name}(...)(client) or "
        f"{name}(...)(client_fn).",
        "mod": f"a mod of a NumPyClient's app: numpy_client_app(client_fn, mods=[{name}(...).mod]).",
        "Message API": f"a mod of any app: @app.train(mods=[{name}(...).mod]) in the Message API, "
        f"ClientApp(client_fn, mods=[{name}(...).mod]) in the classic one{data}.",
        "simulation only": f"in simulations only: the server's strategy is in Adversary(strategy, "
        f"attacks=[{name}(...)]), which a simulation puts there.",
    }
    others = [
        f"with {key}: {value}, {' and '.join(_in_short(form) for form in other)}."
        for key, value, other in other_forms(attack)
    ]
    return [*(words[form] for form in forms), *others]


def other_forms(attack: type[Attack]) -> list[tuple[str, Any, tuple[str, ...]]]:
    """Return (parameter, value, forms) of settings with which an attack has other forms than by default.

    Tried are all values of parameters that take one of several, and half of the default of numbers.
    """
    usual, found = forms_of(attack), []
    made_by: Any = attack
    for key, (hint, parameter) in parameters_of(made_by).items():
        values: tuple[Any, ...] = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        if type(parameter.default) is float:
            values = (parameter.default / 2,)
        found += [(key, value, forms) for value in values if (forms := forms_of(attack, **{key: value})) != usual]
    return found


def table() -> str:
    """Return all registered attacks and their forms as a Markdown table, with notes below."""
    lines = [f"| attack | {' | '.join(_FORMS)} |", "|---" * (1 + len(_FORMS)) + "|"]
    notes: list[str] = []
    for name, attack in ATTACKS.items():
        forms, marks = forms_of(attack), ""
        for key, value, other in other_forms(attack):
            notes.append(f"With `{key}: {value}`: {' and '.join(_in_short(form) for form in other)}.")
            marks += f" ({len(notes)})"
        cells = [("yes, `poisoned`" if _by_hand(attack, form) else "yes") if form in forms else "" for form in _FORMS]
        lines.append(f"| `{name}`{marks} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, start=1))])


def page() -> str:
    """Return the page of the documentation."""
    return f"""# What an attack can be put on

*Decorator*: `@Attack(...)` above a `NumPyClient` class, `Attack(...)(client)` around an instance, or
`Attack(...)(client_fn)`, whichever API serves the client.

*Mod*: of an app of the Message API with a `NumPyClient` in it, made by
`flsec.client_apps.numpy_client_app(client_fn, mods=[Attack(...).mod])`.

*Message API*: a mod of any train function, `@app.train(mods=[Attack(...).mod])`, and of the classic API's
`ClientApp(client_fn, mods=[Attack(...).mod])`; where the table says `poisoned`, what trains passes its data through
`flsec.client_apps.poisoned`.

*Simulation only*: attackers work together, and the strategy wrapper `Adversary(strategy, attacks=[...])` puts their
updates in; a simulation builds it.

Whatever else is tried is refused in the first round in which the client would attack, in a sentence that names a form
that works.

*Training data* may have the shapes of Flower's templates: a pair or a dictionary of arrays, a pandas frame, a list of
examples, a torch `Dataset` or a Hugging Face `Dataset`, or a `DataLoader` of one, with examples that are tuples or
dictionaries. `data_attribute="trainloader"` says where the client holds them, also `"module.trainset"` or
`"x_train,y_train"`; `inputs_key="picture"` and `labels_key="answer"` name parts that have no usual name. Streams are
refused: they have no positions by which examples are chosen.

`flsec describe NAME` says it for one attack, with its parameters.

Made by `python -m flsec.simulations.attack_forms > docs/attacks.md`; a test compares.

{table()}
"""


def _in_short(form: str) -> str:
    return "in simulations only" if form == "simulation only" else f"in the {form}" if " " in form else f"as {form}"


def _by_hand(attack: type[Attack], form: str) -> bool:
    return form == "Message API" and _poisons_data(attack)


def _poisons_data(attack: type[Attack]) -> bool:
    return unbuilt(attack).poisons_data


if __name__ == "__main__":
    print(page(), end="")
