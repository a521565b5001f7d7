"""Parameters of public classes and functions: their allowed values are data, checked in one place.

A signature such as ``num_byzantine: Count`` is read by the constructor's check, by the YAML validation and by
``flsec describe``, so that the three cannot disagree.
"""

import contextlib
import difflib
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Le, Lt

from flsec._calls import MARK
from flsec.errors import ConfigError

if TYPE_CHECKING:  # imported where a value is first checked: an import of flsec alone does not pay for pydantic
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

__all__ = [
    "Count",
    "Fraction",
    "NonNegative",
    "OpenFraction",
    "Positive",
    "PositiveCount",
    "check_parameters",
    "checked",
    "describe_type",
    "nearest_parameter",
    "parameters_of",
    "say_nearest",
    "wrong_call",
    "wrong_value",
]

Count = Annotated[int, Ge(0)]
PositiveCount = Annotated[int, Ge(1)]
NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]


@functools.cache
def parameters_of(target: Callable[..., Any]) -> dict[str, tuple[Any, inspect.Parameter]]:
    """Return {name: (type with its limits, parameter)} of a function or of a class's constructor.

    A constructor that takes ``**options`` passes them to its base class, whose parameters are then included. Where
    annotations name what cannot be found at run time, the types are ``Any``.

    Example:
        >>> from flsec.aggregation.krum import krum
        >>> describe_type(parameters_of(krum)["num_byzantine"][0])
        'int, at least 0'
    """
    if isinstance(target, type):
        owner = next(cls for cls in target.__mro__ if "__init__" in vars(cls))
        if owner is object:  # whose signature takes anything, and which takes nothing
            return {}
        function = inspect.unwrap(vars(owner)["__init__"])
    else:
        owner, function = None, inspect.unwrap(target)
    hints = _hints(function)
    parameters = inspect.signature(function).parameters
    found = {
        name: (hints.get(name, Any), parameter)
        for name, parameter in parameters.items()
        if name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    if owner is not None and any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name, entry in parameters_of(owner.__mro__[1]).items():
            found.setdefault(name, entry)
    return found


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, localns=_LateNames(function.__globals__), include_extras=True)
    except (AttributeError, NameError, TypeError):  # names that only type checkers import, or no annotations at all
        return {}


class _LateNames(dict[str, Any]):
    """The names that annotations may use without their module's importing them: it would load torch with them."""

    _WHERE: typing.ClassVar = {
        "Tensor": ("torch", "Tensor"),
        "Training": ("flsec.training", "Training"),
        "nn": ("torch.nn", None),
        "torch": ("torch", None),
    }

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        self._known = known

    def __missing__(self, name: str) -> Any:
        if name in self._known or name not in self._WHERE:
            raise KeyError(name)  # the module has its own, or Python says what is missing
        module, attribute = self._WHERE[name]
        found = importlib.import_module(module)
        return found if attribute is None else getattr(found, attribute)


Class = typing.TypeVar("Class", bound=type)


def checked(cls: Class, after: Callable[[Any], None] = lambda self: None) -> Class:
    """Return ``cls``, its constructor, if it has one of its own, changed so that it checks its arguments first.

    Args:
        cls: the class.
        after: called with the new object when its whole construction is over.

    Example:
        >>> @checked
        ... class Rule:
        ...     def __init__(self, *, num_byzantine: Count) -> None:
        ...         self.num_byzantine = num_byzantine
        >>> try:
        ...     Rule(num_byzantine=-1)
        ... except ConfigError as error:
        ...     print(error)
        Rule: num_byzantine must be greater than or equal to 0; got -1. Allowed: int, at least 0.
    """
    original = vars(cls).get("__init__")
    if original is None:
        return cls
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        outermost = getattr(type(self), "__init__") is init  # noqa: B009 - mypy calls it unsound; a base's is called again
        if outermost:
            name = type(self).__name__
            try:
                given = signature.bind_partial(self, *args, **kwargs).arguments
            except TypeError:
                raise wrong_call(type(self), name, args, kwargs) from None
            given.update(given.pop("options", {}))
            given.pop("self")
            check_parameters(cls, given, name=name)
            _check_nothing_is_missing(cls, given, name)
        original(self, *args, **kwargs)
        if outermost:
            after(self)

    setattr(init, MARK, True)
    setattr(cls, "__init__", init)  # noqa: B010 - as above
    return cls


def _check_nothing_is_missing(cls: Callable[..., Any], given: Collection[str], name: str) -> None:
    known = parameters_of(cls)
    needed = [key for key, (_, parameter) in known.items() if parameter.default is inspect.Parameter.empty]
    missing = [key for key in needed if key not in given]
    if missing:
        form = ", ".join(key if _is_positional(known[key][1]) else f"{key}=..." for key in needed)
        types = {key: describe_type(known[key][0]) for key in missing}
        what = " and ".join(f"{key} ({text})" if len(text) < _LONGEST_TYPE else key for key, text in types.items())
        raise ConfigError(f"{name} needs {what}. For example: {name}({form}).", parameter=missing[0])


_LONGEST_TYPE = 100  # characters: numpy's ArrayLike is longer


def _is_positional(parameter: inspect.Parameter) -> bool:
    return parameter.kind is not inspect.Parameter.KEYWORD_ONLY


def wrong_call(cls: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ConfigError:
    """Return the error about a call that the signature does not allow, with one that it does.

    A class may know better what is meant, and say so in a class method ``_misused(args)``.

    Args:
        cls: the class, or a function.
        name: how the message calls it.
        args: what it was called with by position.
        kwargs: what it was called with by name.
    """
    misused: ConfigError | None = getattr(cls, "_misused", lambda args: None)(args)
    if misused is not None:
        return misused
    known = parameters_of(cls)
    first = [key for key, (_, parameter) in known.items() if _is_positional(parameter)]
    if unknown := [key for key in kwargs if key not in known]:
        return _unknown(unknown[0], known, name)
    if twice := [key for key in first[: len(args)] if key in kwargs]:
        return ConfigError(f"{name} got {twice[0]} twice, by position and by name. Keep one.", parameter=twice[0])
    if len(args) <= len(first):
        try:
            _check_nothing_is_missing(cls, {*first[: len(args)], *kwargs}, name)
        except ConfigError as error:
            return error
        return ConfigError(f"{name} cannot be called so. It takes {', '.join(known) or 'nothing'}.")
    if len(first) == len(known):
        return ConfigError(f"{name} takes {', '.join(first) or 'no arguments'} and no more; got {len(args)} arguments.")
    others = [key for key in known if key not in first and key not in kwargs]
    by_name = {**dict(zip(others, args[len(first) :], strict=False)), **kwargs}
    shown = {key: _as_argument(value) if _fits(cls, key, value) else "..." for key, value in by_name.items()}
    given = [*first, *(f"{key}={value}" for key, value in shown.items() if key not in first)]
    after = f" after {' and '.join(first)}" if first else ""
    return ConfigError(f"{name} takes keyword arguments only{after}. For example: {name}({', '.join(given)}).")


def _as_argument(value: Any) -> str:
    text = repr(value)
    return "..." if "<" in text or len(text) > 40 else text


def wrong_value(
    cls: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> ConfigError | None:
    """Return the error about the first argument that does not fit its type, if there is one.

    Args:
        cls: the class, or a function.
        name: how the message calls it.
        args: what it was called with by position.
        kwargs: what it was called with by name.
    """
    try:
        check_parameters(cls, {**dict(zip(parameters_of(cls), args, strict=False)), **kwargs}, name=name)
    except ConfigError as error:
        return error
    return None


def _unknown(key: str, known: Iterable[str], name: str) -> ConfigError:
    hint = say_nearest(key, known)
    takes = ", ".join(sorted(known)) or "none"
    return ConfigError(f"{name}: unknown parameter {key!r}; it takes {takes}.{hint}", parameter=key)


# What papers, Flower and other libraries call a parameter of ours; said only where there is the one on the right.
_ALSO_CALLED = {
    "f": ("num_byzantine", "count"),
    "byzantine_client_num": ("num_byzantine",),
    "n_byzantine": ("num_byzantine",),
    "nb_byz": ("num_byzantine",),
    "num_adversaries": ("num_byzantine", "count"),
    "num_attackers": ("count", "num_byzantine"),
    "num_malicious": ("num_byzantine", "count"),
    "num_malicious_clients": ("num_byzantine", "count"),
    "num_malicious_nodes": ("num_byzantine", "count"),
    "krum_param_m": ("num_selected",),
    "m": ("num_selected",),
    "num_clients_to_keep": ("num_selected",),
    "num_nodes_to_select": ("num_selected",),
    "to_keep": ("num_selected",),
    "clip": ("max_norm", "radius"),
    "clip_norm": ("max_norm", "radius"),
    "clipping_norm": ("max_norm", "radius"),
    "norm_bound": ("max_norm", "radius"),
    "tau": ("radius", "max_norm"),
    "trim": ("num_trimmed", "beta"),
    "noise": ("std",),
    "noise_multiplier": ("std",),
    "sigma": ("std",),
    "stddev": ("std",),
    "boost": ("scale",),
    "factor": ("scale",),
    "multiplier": ("scale",),
    "original_class": ("source",),
    "original_class_list": ("source",),
    "source_class": ("source",),
    "src": ("source",),
    "dst": ("target",),
    "target_class": ("target",),
    "target_class_list": ("target",),
    "target_label": ("target",),
    "poison_fraction": ("fraction",),
    "ratio": ("fraction",),
    "lr": ("learning_rate",),
    "eta": ("learning_rate",),
    "local_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "rounds": ("num_rounds",),
}


def nearest_parameter(key: str, known: Iterable[str]) -> str | None:
    """Return the parameter that was meant by one that there is not: by its spelling, or by what others call it.

    Example:
        >>> nearest_parameter("f", ["num_byzantine", "weighting"])
        'num_byzantine'
    """
    names = list(known)
    also = (name for name in _ALSO_CALLED.get(key.lower(), ()) if name in names)
    return next(also, None) or next(iter(difflib.get_close_matches(key, names, n=1, cutoff=0.5)), None)


def say_nearest(key: str, known: Iterable[str]) -> str:
    """Return a hint such as " Did you mean 'scale'?", or nothing if no known parameter is near."""
    near = nearest_parameter(key, known)
    return f" Did you mean {near!r}?" if near else ""


@functools.cache
def _adapter(target: Callable[..., Any], name: str) -> "TypeAdapter[Any]":
    from pydantic import ConfigDict, InstanceOf, TypeAdapter

    hint, _ = parameters_of(target)[name]
    if inspect.isabstract(hint):  # of which pydantic would make an instance, where it is a dataclass
        hint = Annotated[hint, InstanceOf()]  # type: ignore[type-arg]
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
    except Exception:  # a type that carries its own configuration refuses ours
        return TypeAdapter(hint)


def _fits_plainly(hint: Any, value: Any) -> bool:
    """Whether a plain value is of its type and within its limits; what is not plain, or does not fit, pydantic judges.

    A client process of a deployment checks an attack's few numbers for each message, and pydantic's import alone costs
    it as much as all of flsec.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        base, *limits = parts
        return _fits_plainly(base, value) and all(map(functools.partial(_is_within, value), limits))
    if origin in (typing.Union, types.UnionType):
        return any(_fits_plainly(part, value) for part in parts)
    if origin is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in parts)
    if origin is Callable:
        return callable(value)
    if origin is Sequence:
        return type(value) in (list, tuple) and all(_fits_plainly(parts[0], entry) for entry in value)
    return isinstance(hint, type) and (type(value) is hint or (hint is float and type(value) is int))


def _is_within(value: Any, limit: Any) -> bool:
    match limit:
        case Ge(least):
            return bool(value >= least)
        case Gt(least):
            return bool(value > least)
        case Le(most):
            return bool(value <= most)
        case Lt(most):
            return bool(value < most)
    return False  # another kind of limit


def _first_error(target: Callable[..., Any], name: str, value: Any) -> "ErrorDetails | None":
    """Return what is wrong with a value of the parameter ``name``, if anything."""
    from pydantic import ValidationError

    try:
        _adapter(target, name).validate_python(value)
    except ValidationError as error:
        return error.errors()[0]
    return None


def check_parameters(target: Callable[..., Any], values: Mapping[str, Any], *, name: str) -> None:
    """Raise ``ConfigError`` unless every value fits the type and limits in ``target``'s signature.

    Args:
        target: a function or a class.
        values: parameter values by name; parameters that are left out are not checked here.
        name: how the message calls ``target``.

    Raises:
        ConfigError: a name that the signature does not have, or a value of another type or beyond its limits.

    Example:
        >>> from flsec.aggregation.krum import krum
        >>> try:
        ...     check_parameters(krum, {"num_byzantin": 2}, name="krum")
        ... except ConfigError as error:
        ...     print(str(error)[-31:])
        . Did you mean 'num_byzantine'?
    """
    known = parameters_of(target)
    for key, value in values.items():
        if key not in known:
            raise _unknown(key, known, name)
        error = None if _fits_plainly(known[key][0], value) else _first_error(target, key, value)
        if error is not None:
            inner = "".join(f"[{part!r}]" for part in error["loc"] if isinstance(part, int))
            allowed = describe_type(known[key][0])
            raise ConfigError(
                f"{name}: {key}{inner} {_requirement(error)}; got {value!r}. Allowed: {allowed}."
                f"{_what_would_do(target, key, value, error['input'])}",
                parameter=key,
            )


def _fits(target: Callable[..., Any], key: str, value: Any) -> bool:
    return _fits_plainly(parameters_of(target)[key][0], value) or _first_error(target, key, value) is None


def _what_would_do(target: Callable[..., Any], key: str, value: Any, wrong: Any) -> str:
    """Return what was meant by a value that does not fit, if that is plain: to go behind another sentence."""
    if isinstance(wrong, type):
        return f" Is it an instance that is meant, {wrong.__name__}(...)?"
    if _fits(target, key, [value]):
        return f" In a list: {key}=[...]."
    if isinstance(value, list | tuple) and len(value) == 1 and _fits(target, key, value[0]):
        return f" Without a list: {key}=..."
    for plain in _plainer(value):
        if _fits(target, key, plain):
            return f" For example: {key}={plain!r}."
    return ""


def _plainer(value: Any) -> Iterator[Any]:
    """Yield a number that a text, or a number of numpy's or torch's, stands for."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            yield int(value)
        with contextlib.suppress(ValueError):
            yield float(value)
    if isinstance(getattr(value, "ndim", None), int) and value.ndim == 0:
        yield value.item()
    if isinstance(value, float) and value.is_integer():
        yield int(value)


def _requirement(error: "ErrorDetails") -> str:
    message = error["msg"]
    return message.replace("Input should be", "must be").replace("Input", "the value")


def describe_type(hint: Any) -> str:
    """Return one phrase for a type with its limits, such as ``int, at least 0``.

    Example:
        >>> describe_type(Count), describe_type(PositiveCount | None)
        ('int, at least 0', 'int, at least 1 or null')
    """
    words = {Ge: "at least", Gt: "more than", Le: "at most", Lt: "less than"}
    if typing.get_origin(hint) is Annotated:
        base, *limits = typing.get_args(hint)
        phrases = [
            f"{words[type(limit)]} {getattr(limit, type(limit).__name__.lower())}"
            for limit in limits
            if type(limit) in words
        ]
        return ", ".join([describe_type(base), *phrases])
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(value) for value in typing.get_args(hint))
    if typing.get_args(hint):
        origin = typing.get_origin(hint)
        parts = [describe_type(part) for part in typing.get_args(hint) if part is not Ellipsis]
        if origin in (typing.Union, types.UnionType):
            if len(set(parts)) < len(parts):  # Flower's two classes called Strategy
                parts = [f"{part.__module__}.{part.__qualname__}" for part in typing.get_args(hint)]
            return " or ".join(parts)
        return f"{getattr(origin, '__name__', str(origin)).lower()} of {', '.join(parts)}"
    if hint is type(None):
        return "null"
    return getattr(hint, "__name__", str(hint))
