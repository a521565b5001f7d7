"""Who takes part in a round: what came back, sorted into rows of a cohort and a quarantine."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from flsec.strategies._flower import Collected
from flsec.strategies._metrics import averageable
from flsec.strategies.cohort import Cohort
from flsec.strategies.replies import GlobalModel, Reply
from flsec.strategies.report import MOST_LINES, Quarantined

__all__ = ["Screened", "log_left_out", "log_quarantined", "screen"]

logger = logging.getLogger("flsec")


@dataclass(frozen=True)
class Screened:
    """A round's replies, sorted.

    Attributes:
        cohort: the well-formed ones of clients that were asked.
        replies: all of clients that were asked; ``Cohort.sources`` counts in these.
        quarantined: who was dropped or sent nothing, with the reason.
        metrics_left_out: {id: reason} of metrics that cannot be averaged with the others'.
        one_sum: whether Flower put one and the same reply in the place of all.
        rejected: ids of the asked clients that were quarantined for what they sent.
    """

    cohort: Cohort
    replies: list[Reply]
    quarantined: tuple[Quarantined, ...]
    metrics_left_out: Mapping[int, str]
    one_sum: bool
    rejected: tuple[int, ...]


def screen(
    collected: Collected, model: GlobalModel, asked: Collection[int], server_round: int, max_num_examples: int
) -> Screened:
    """Sort what came back in a round.

    Args:
        collected: the replies.
        model: what the clients started from.
        asked: ids of the clients that were asked; empty: all count.
        server_round: the server's round.
        max_num_examples: more than this is nothing that an honest client would report.
    """
    expected = [reply for reply in collected.replies if not asked or reply.client_id in asked]
    strangers = {reply.client_id for reply in collected.replies} - {reply.client_id for reply in expected}
    cohort, malformed, left_out = model.parse(expected, round=server_round, max_num_examples=max_num_examples)
    malformed = [*collected.malformed, *malformed]
    rejected = {entry.client_id for entry in malformed if not asked or entry.client_id in asked}
    cohort = cohort.replace(num_rejected=len(rejected - set(cohort.client_ids)))
    quarantined = [
        *collected.silent,
        *(Quarantined(client_id, "was not asked this round") for client_id in sorted(strangers)),
        *malformed,
    ]
    heard = {reply.client_id for reply in collected.replies} | {entry.client_id for entry in quarantined}
    failures = f"; failures this round: {'; '.join(sorted(set(collected.nameless)))}" if collected.nameless else ""
    silent = (Quarantined(client_id, f"sent no reply{failures}") for client_id in sorted(set(asked) - heard))
    different = averageable(cohort.metrics).left_out
    left_out = {**{cohort.client_ids[row]: why for row, why in different.items()}, **left_out}
    entries = (*quarantined, *silent)
    return Screened(cohort, expected, entries, left_out, collected.one_sum, tuple(sorted(rejected)))


def log_left_out(what: str, server_round: int, left_out: Mapping[int, str]) -> None:
    """Log in one line whose metrics could not be averaged with the others'."""
    if left_out:
        clients = ", ".join(map(str, list(left_out)[:MOST_LINES])) + (" and more" if len(left_out) > MOST_LINES else "")
        why = next(iter(left_out.values()))
        logger.warning("round %d: %s left out of averages: client %s: %s", server_round, what, clients, why)


def log_quarantined(who: str, server_round: int, quarantined: Sequence[Quarantined]) -> None:
    """Log who was quarantined: the first in a line each, then how many more."""
    for entry in quarantined[:MOST_LINES]:
        logger.warning("round %d: %s %d quarantined: %s", server_round, who, entry.client_id, entry.reason)
    if len(quarantined) > MOST_LINES:
        logger.warning("round %d: and %d more quarantined", server_round, len(quarantined) - MOST_LINES)
