"""Acting on verdicts from a file: others take the places of the banned, defenses stand by, and a run can be resumed."""

from pathlib import Path
from typing import Any

import pytest

from flsec.errors import ConfigError, NoProgressError
from flsec.simulations import engine
from flsec.simulations.config import load_config
from flsec.simulations.run_folder import RunFolder
from tests.support.figures import figures

EXPERIMENT = """
name: banned
seed: 3
data: {name: digits}
model: {name: softmax}
training: {learning_rate: 0.1, batch_size: 32}
defenses:
  - {name: ban_list, after: 2, within: 5, for_rounds: 4, patience: 3}
  - {name: oracle_sgd}
attacks: [{name: sign_flipping, scale: 4.0}]
adversaries: {ids: [1, 4, 7]}
simulation: {engine: inprocess, num_clients: 12, clients_per_round: 8, num_rounds: 14}
output: {plots: false, keep_checkpoints: null}
"""


@pytest.fixture
def start(tmp_path: Path) -> Any:
    def run(*settings: str) -> Any:
        file = tmp_path / "banned.yaml"
        file.write_text(EXPERIMENT)
        return engine.run(load_config(file, [f"output.folder={tmp_path / 'runs'}", *settings]))

    return run


def bans_of(records: list[dict[str, Any]]) -> list[set[int]]:
    """Who is banned in each round, replayed from the records."""
    banned: set[int] = set()
    found = []
    for record in records:
        found.append(set(banned))
        notes = next(d["notes"] for d in record["defenses"] if d["name"] == "BanList")
        banned = (banned - set(notes.get("reinstated", []))) | set(notes.get("banned", []))
        assert len(banned) == notes["bans"]
    return found


def test_others_take_the_places_of_the_banned_and_those_come_back(start: Any) -> None:
    records = start().rounds()[1:]
    bans = bans_of(records)
    assert {len(banned) for banned in bans} >= {0, 3}
    for record, banned in zip(records, bans, strict=True):
        assert len(record["sampled"]) == 8
        assert not banned & set(record["sampled"])
        assert banned <= {1, 4, 7}
        assert set(record["adversaries"]) <= {1, 4, 7} - banned
    last = max(number for number, banned in enumerate(bans) if banned == {1, 4, 7})
    assert any(record["adversaries"] for record in records[last + 1 :])
    free = start("defenses=[{name: oracle_sgd}]").rounds()[1:]
    first = next(number for number, banned in enumerate(bans) if banned)
    assert [r["sampled"] for r in free[:first]] == [r["sampled"] for r in records[:first]]  # no bans, no difference


def test_where_all_take_part_the_banned_are_left_out(start: Any) -> None:
    records = start("simulation.clients_per_round=null").rounds()[1:]
    for record, banned in zip(records, bans_of(records), strict=True):
        assert set(record["sampled"]) == set(range(12)) - banned
        oracle = next(d for d in record["defenses"] if d["name"] == "OracleSGD")
        assert set(oracle["kept"]) == set(range(12)) - {1, 4, 7}


def test_a_fixed_number_of_adversaries_is_of_those_who_are_not_banned(start: Any) -> None:
    records = start("simulation.adversaries_per_round=2").rounds()[1:]
    for record, banned in zip(records, bans_of(records), strict=True):
        assert len(record["adversaries"]) == min(2, 3 - len(banned))
        assert len(record["sampled"]) == 8
        assert not banned & set(record["sampled"])


def test_a_resumed_run_has_the_same_bans_and_numbers(start: Any) -> None:
    folder = start()
    expected, model = figures(folder), (folder.path / "model.safetensors").read_bytes()
    for number in (2, 5, 9):
        engine.resume(folder.path, from_round=number)
        assert figures(folder) == expected
        assert (folder.path / "model.safetensors").read_bytes() == model


def test_a_run_that_has_too_few_clients_left_ends_with_an_error_and_its_last_round_in_the_record(
    start: Any, tmp_path: Path
) -> None:
    krum = "{name: krum, num_byzantine: 2}"
    with pytest.raises(NoProgressError, match="needs at least 7 replies, and the strategy asks 4, where 8 clients"):
        start(
            f"defenses=[{{name: ban_list, after: 1, within: 1, patience: 3}}, {{name: oracle_sgd}}, {krum}]",
            "adversaries={ids: [0, 1, 2, 3, 4, 5, 6, 7]}",
            "simulation.clients_per_round=12",
        )
    records = RunFolder.open(tmp_path / "runs" / "banned").rounds()[1:]
    assert [record["sampled"] for record in records] == [list(range(12)), [8, 9, 10, 11], [8, 9, 10, 11]]
    assert all("needs at least 7" in record["kept_previous_model"] for record in records)
    assert len(bans_of(records)[-1]) == 8


def test_a_ban_list_with_sampling_without_replacement_is_refused(start: Any) -> None:
    with pytest.raises(ConfigError, match=r"simulation\.sampling: without_replacement asks each client once"):
        start("simulation.sampling=without_replacement", "simulation.num_rounds=1")


def test_a_ban_list_around_a_rule_that_drops_by_design_is_refused_with_its_line(start: Any) -> None:
    with pytest.raises(ConfigError, match=r"defenses\[0\].*what Krum drops accuses no client"):
        start("defenses=[{name: ban_list}, {name: krum, num_byzantine: 2}]")


def test_a_defense_stands_by_until_a_round_fires_also_after_a_resumption(start: Any) -> None:
    """With a detector inside that asks for what a run supplies."""
    folder = start(
        "defenses=[{name: activate_on_suspicion, detector: inside, for_rounds: 2}, {name: oracle_sgd}, {name: median}]",
        "adversaries={ids: [1, 4, 7], first_round: 4, last_round: 5}",
        "simulation.num_rounds=9",
    )
    records, expected = folder.rounds()[1:], figures(folder)
    names = [[defense["name"] for defense in record["defenses"]] for record in records]
    active = [record["defenses"][0]["notes"]["active"] for record in records]
    assert active == [False, False, False, True, True, True, False, False, False]
    assert [len(found) == 2 for found in names] == active
    assert [record["defenses"][0]["notes"]["suspects"] for record in records] == [r["adversaries"] for r in records]
    assert all(len(record["defenses"][0]["kept"]) == 8 for record in records)
    for number in (3, 4, 6):
        engine.resume(folder.path, from_round=number)
        assert figures(folder) == expected


def test_a_function_as_detector_is_nothing_that_a_file_can_say(start: Any) -> None:
    with pytest.raises(ConfigError, match=r"defenses\[0\].detector: must be"):
        start("defenses=[{name: activate_on_suspicion, detector: my_detector}, {name: median}]")
