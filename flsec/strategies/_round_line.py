"""A round in one line of the log, of bounded length whatever clients send."""

from collections.abc import Iterable, Mapping

from flsec.strategies.report import Quarantined, RoundReport, Verdict, brief

__all__ = ["evaluation_line", "round_line"]

MOST_CLIENTS = 5  # named of each group
MOST_REASONS = 5

Partitions = Mapping[int, int]


def round_line(report: RoundReport, partitions: Partitions) -> str:
    """Return what a round came to: how many replies were usable, who was dropped and why, the seconds it took.

    Args:
        report: the round's.
        partitions: {client id: partition}; clients that it knows are named by their partition.
    """
    of_asked = f"{report.usable} of {report.asked}" if report.asked else f"{report.usable}"
    seconds = f"{sum(report.seconds.values()):.2f} s"
    parts = [f"round {report.round}: {of_asked} replies usable, {len(report.kept)} kept, {seconds}"]
    if report.kept_previous_model is not None:
        parts.append(f"previous global model kept: {report.kept_previous_model}")
    parts += _quarantined(report.quarantined, partitions)
    parts += [_dropped(verdict, partitions) for verdict in report.verdicts if verdict.dropped]
    parts += _left_out(report.metrics_left_out, partitions)
    return " | ".join(parts)


def evaluation_line(
    server_round: int, quarantined: Iterable[Quarantined], left_out: Mapping[int, str], partitions: Partitions
) -> str | None:
    """Return whose evaluation was dropped or could not be averaged, and why; None if nobody's."""
    parts = [*_quarantined(quarantined, partitions), *_left_out(left_out, partitions)]
    return " | ".join([f"round {server_round}, evaluation", *parts]) if parts else None


def _quarantined(entries: Iterable[Quarantined], partitions: Partitions) -> list[str]:
    pairs = [(entry.client_id, entry.reason) for entry in entries]
    return [f"quarantined {len(pairs)}: {_by_reason(pairs, partitions)}"] if pairs else []


def _left_out(reasons: Mapping[int, str], partitions: Partitions) -> list[str]:
    return [f"metrics left out of averages: {_by_reason(reasons.items(), partitions)}"] if reasons else []


def _by_reason(pairs: Iterable[tuple[int, str]], partitions: Partitions) -> str:
    """Return each reason once, the most frequent first, with how many and who."""
    groups: dict[str, list[int]] = {}
    for client_id, reason in pairs:
        groups.setdefault(reason, []).append(client_id)
    frequent = sorted(groups.items(), key=lambda group: -len(group[1]))
    told = [
        (f"{len(clients)} x " if len(clients) > 1 else "") + f"{reason} [{_names(clients, partitions)}]"
        for reason, clients in frequent[:MOST_REASONS]
    ]
    others = sum(len(clients) for _, clients in frequent[MOST_REASONS:])
    return "; ".join([*told, *([f"{others} for other reasons"] if others else [])])


def _dropped(verdict: Verdict, partitions: Partitions) -> str:
    clients = verdict.dropped
    told = [_name(client_id, partitions) + _why(verdict, client_id) for client_id in clients[:MOST_CLIENTS]]
    return f"{verdict.defense} dropped {len(clients)}: {_list(told, len(clients))}"


def _why(verdict: Verdict, client_id: int) -> str:
    reasons = verdict.notes.get("dropped")
    if isinstance(reasons, Mapping) and client_id in reasons:
        return f" ({brief(reasons[client_id])})"
    if verdict.scores is not None and client_id in verdict.scores:
        score = verdict.scores[client_id]
        return f" ({score:.4g})" if verdict.threshold is None else f" ({verdict.threshold.tells(score)})"
    if verdict.weights is not None and client_id in verdict.weights:
        return f" (weight {verdict.weights[client_id]:.4g})"
    return ""


def _names(clients: list[int], partitions: Partitions) -> str:
    return _list([_name(client_id, partitions) for client_id in clients[:MOST_CLIENTS]], len(clients))


def _name(client_id: int, partitions: Partitions) -> str:
    return f"partition {partitions[client_id]}" if client_id in partitions else f"client {client_id}"


def _list(told: list[str], number: int) -> str:
    more = number - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")
