"""What Flower's metrics dictionary is told of a round."""

from collections.abc import Sequence
from typing import Any

from flsec.strategies.report import RoundReport

__all__ = ["summary"]


def summary(report: RoundReport | None, *, lists: bool) -> dict[str, Any]:
    """Return what Flower's metrics dictionary is told."""
    assert report is not None
    quarantined = list(dict.fromkeys(entry.client_id for entry in report.quarantined))
    return {
        "flsec-usable": report.usable,
        "flsec-kept": len(report.kept),
        "flsec-quarantined": len(quarantined),
        "flsec-kept-previous-model": int(report.kept_previous_model is not None),
        "flsec-seconds": sum(report.seconds.values()),
        "flsec-kept-ids": _ids(report.kept, lists),
        "flsec-quarantined-ids": _ids(quarantined, lists),
    }


class _IdList(list[int]):
    """Node ids, of which Flower's log is told the number: it prints all metrics, each round and at the end."""

    def __repr__(self) -> str:
        return f"[{len(self)} ids]"


class _IdText(str):
    """The same in one text, as the classic API's metrics are no lists."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{len(self.split(',')) if self else 0} ids'"


def _ids(clients: Sequence[int], lists: bool) -> list[int] | str:
    return _IdList(clients) if lists else _IdText(",".join(map(str, clients)))
