"""Who takes part in a round: what came back, sorted into rows of a cohort and a quarantine."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flsec.strategies._flower import Collected
from flsec.strategies._metrics import averageable
from flsec.strategies.cohort import Cohort
from flsec.strategies.replies import GlobalModel, Reply
from flsec.strategies.report import Quarantined

__all__ = ["Screened", "screen"]


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
        *(Quarantined(client_id, "was not asked this round", "not_asked") for client_id in sorted(strangers)),
        *malformed,
    ]
    heard = {reply.client_id for reply in collected.replies} | {entry.client_id for entry in quarantined}
    failures = f"; failures this round: {'; '.join(sorted(set(collected.nameless)))}" if collected.nameless else ""
    missing = sorted(set(asked) - heard)
    silent = (Quarantined(client_id, f"sent no reply{failures}", "no_reply") for client_id in missing)
    different = averageable(cohort.metrics).left_out
    left_out = {**{cohort.client_ids[row]: why for row, why in different.items()}, **left_out}
    return Screened(cohort, expected, (*quarantined, *silent), left_out, collected.one_sum, tuple(sorted(rejected)))
