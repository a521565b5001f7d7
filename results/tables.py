"""Tables of README.md and of pages in docs/, made from what is recorded here: python -m results.tables."""

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flsec.simulations.studies.board import load_board
from flsec.simulations.studies.board_files import read_csv
from flsec.simulations.studies.board_scores import parts, rows_of
from flsec.simulations.studies.claim_results import judge, read_result
from flsec.simulations.studies.claims import Claim, load_claim, packaged_claims

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{page}.md" for page in ("fidelity", "choosing", "leaderboard")))
BOARDS = ROOT / "results" / "leaderboard"
VERDICTS = ("comes out", "does not come out", "open")
PAPERS = {
    "fedmlsecurity": "FedMLSecurity",
    "siren": "SIREN",
    "diversefl": "DiverseFL",
    "sparsefed": "SparseFed",
    "fedinv": "FedInv",
}

_MARKED = re.compile(r"(?<=<!-- from results: )(\w+)( -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)


def page_with_tables(text: str) -> str:
    """Return a page whose marked places, ``<!-- from results: NAME -->`` to ``<!-- end -->``, are up to date."""
    return _MARKED.sub(lambda found: f"{found[1]}{found[2]}{_block(found[1], found[3].strip())}\n", text)


def _block(name: str, before: str) -> str:
    if name == "leaderboard":  # until there is one, what stands there
        return "\n\n".join(file.read_text().strip() for file in sorted(BOARDS.glob("*.md"))) or before
    if name == "best":
        return _best() if (BOARDS / "digits.csv").is_file() else before
    if name == "summary":
        return _summary()
    return "\n\n".join(_section(claim) for claim in packaged_claims() if claim.startswith(f"{name}/"))


def verdict_of(name: str) -> dict[str, Any]:
    """Return the record of a claim; of one that was not recorded, an open verdict alone."""
    return read_result(name, ROOT / "results") or vars(judge(load_claim(name), {}))


_SHOWN = 12  # rows of the board on the page for choosing, beside the well-known ones
_WELL_KNOWN = (
    "undefended", "krum", "multi_krum", "median", "trimmed_mean", "geometric_median", "fltrust", "norm_clipping"
)  # fmt: skip


def _best() -> str:
    """Return the best rows of the board that need nothing, and those of the best-known defenses."""
    board, lines = load_board("digits"), read_csv(BOARDS / "digits.csv")
    rows = [row for row in rows_of(board, parts(board)[0], lines) if row.worst is not None]
    bare = [row.defense for row in rows if not set(row.needs) - {"f"}][:_SHOWN]
    known = (
        "undefended",
        "krum",
        "multi_krum",
        "median",
        "trimmed_mean",
        "geometric_median",
        "fltrust",
        "norm_clipping",
    )
    shown = [row for row in rows if row.defense in (*bare, *known)]
    cells = [
        (str(row.rank), f"`{row.defense}`", str(row.clean), str(row.worst), f"`{row.strongest}`", "; ".join(row.needs))
        for row in shown
    ]
    return _table(("rank", "defense", "nobody attacks", "worst case", "by", "needs"), cells)


def _summary() -> str:
    rows = []
    for paper, title in PAPERS.items():
        claims = {name: verdict_of(name)["verdict"] for name in packaged_claims() if name.startswith(f"{paper}/")}
        cells = (
            ", ".join(f"`{name.partition('/')[2]}`" for name, verdict in claims.items() if verdict == wanted)
            for wanted in VERDICTS
        )
        rows.append((f"{title} (`{paper}/`)", *cells))
    return _table(("paper", *VERDICTS), rows)


def _section(name: str) -> str:
    claim, record = load_claim(name), verdict_of(name)
    if record.get("size", "small") != "small":
        claim = load_claim(name, record["size"])
    parts = [
        f"### {name}: {claim.file.title}",
        _filled(f"{claim.file.place}. {claim.file.says}"),
        _filled(f"Here: {claim.why}" + (" In full: " + claim.file.full.why if claim.file.full else "")),
    ]
    if "ours" in record:
        parts += [_numbers(claim, record), f"![{name}](../results/{name}.png)"]
        parts += (
            ["\n".join(_statement(statement) for statement in record["statements"])] if record["statements"] else []
        )
    reason = f": {record['reason'].rstrip('.')}." if record["reason"] else "."
    seeds = f" ({len(record['seeds'])} seeds, {record['seconds']} s of runs)" if "ours" in record else ""
    parts.append(_filled(f"**{record['verdict'].capitalize()}**{reason}{seeds} `flsec reproduce {name}`"))
    return "\n\n".join(parts)


def _numbers(claim: Claim, record: dict[str, Any]) -> str:
    measures = [m for m in claim.measures if any(m in ours for ours in record["ours"].values())]
    heads = [head for measure in measures for head in (f"{measure.replace('_', ' ')}, paper", "ours", "95 %")]
    rows = [
        (f"`{curve}`", *(cell for measure in measures for cell in _cells(record, curve, measure)))
        for curve in record["ours"]
    ]
    return _table(("curve", *heads), rows)


def _cells(record: dict[str, Any], curve: str, measure: str) -> tuple[str, str, str]:
    paper = record["paper"].get(measure, {}).get(curve)
    ours = record["ours"][curve].get(measure)
    said = "" if paper is None else f"{paper:.3f}"
    if ours is None or ours["mean"] is None:
        return said, "", ""
    spread = ours["interval"]
    return said, f"{ours['mean']:.3f}", "" if spread is None else f"{spread[0]:.3f} to {spread[1]:.3f}"


def _statement(statement: dict[str, Any]) -> str:
    found = "; ".join(
        f"{f['what']} {f['mean']:.3f}" + (f" [{f['interval'][0]:.3f}, {f['interval'][1]:.3f}]" if f["interval"] else "")
        for f in statement["found"]
        if f["mean"] is not None
    )
    return f"- {'holds' if statement['holds'] else '**fails**'}: {statement['text']}: {found}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        page.write_text(page_with_tables(page.read_text()))


if __name__ == "__main__":
    main()
