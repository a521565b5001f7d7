"""Claims as files: what they may say, the runs that they come to, and that these are fair to compare."""

from pathlib import Path

import pytest

from flsec.errors import ConfigError
from flsec.simulations.studies.claims import (
    has_form,
    load_claim,
    packaged_claims,
    resolve_claims,
    resolved_settings,
    settings_hash,
)

CLAIM = """
title: Krum holds
place: Fig. 1
says: Krum holds where plain averaging does not.
paper:
  accuracy: {krum: 0.8}
statements:
  - {order: [attacked, krum]}
small:
  why: digits
  experiment:
    data: {name: digits}
    model: {name: mlp, hidden: [8]}
    training: {learning_rate: 0.1, epochs: 1}
    attacks: [{name: sign_flipping, scale: 4.0}]
    adversaries: {count: 2}
    simulation: {num_clients: 10, num_rounds: 2}
  curves:
    free: {attacks: [], adversaries: null}
    attacked: {}
    krum: {defenses: [{name: krum, num_byzantine: 2}]}
  seeds: [1, 2, 3]
full:
  why: more rounds
  changes: {simulation.num_rounds: 5}
"""
PAPERS = ("diversefl", "fedinv", "fedmlsecurity", "siren", "sparsefed")


@pytest.fixture
def claim_file(tmp_path):
    def write(*changes: tuple[str, str]) -> Path:
        text = CLAIM
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "claim.yaml"
        file.write_text(text)
        return file

    return write


def load(path: Path, size="small"):
    return load_claim("paper/claim", size, path=path)


def test_curves_are_the_experiment_with_their_changes(claim_file):
    curves = load(claim_file()).curves
    assert [d.name for d in curves["krum"].defenses] == ["krum"]
    assert curves["free"].attacks == ()
    assert {c.simulation.num_rounds for c in curves.values()} == {2}
    assert {c.simulation.engine for c in curves.values()} == {"inprocess"}


def test_each_curve_and_seed_is_a_run_in_a_folder_of_its_own(claim_file, tmp_path):
    claim = load(claim_file())
    runs = claim.runs(tmp_path)
    assert set(runs) == {(curve, seed) for curve in claim.curves for seed in (1, 2, 3)}
    assert all(config.seed == seed for (_, seed), config in runs.items())
    assert len({config.name for config in runs.values()}) == len(runs)
    assert {config.output.folder for config in runs.values()} == {str(tmp_path)}


def test_another_form_takes_what_it_does_not_say_from_small(claim_file):
    full = load(claim_file(), "full")
    assert list(full.curves) == ["free", "attacked", "krum", "krum_attack_free"]
    assert {c.simulation.num_rounds for c in full.curves.values()} == {5}
    assert full.seeds == (1, 2, 3)
    fewer = load(
        claim_file(("  why: more rounds\n", "  why: more\n  curves: [attacked, krum]\n  seeds: [7]\n")), "full"
    )
    assert list(fewer.curves) == ["attacked", "krum", "krum_attack_free"]
    assert fewer.seeds == (7,)


def test_an_attacked_defense_gets_its_attack_free_twin(claim_file):
    curves = load(claim_file()).curves
    twin = curves["krum_attack_free"]
    assert twin.defenses == curves["krum"].defenses
    assert twin.attacks == ()
    assert twin.adversaries is None
    assert "attacked_attack_free" not in curves  # no defense: its twin is a matter of the file


def test_a_twin_that_the_file_has_is_not_added(claim_file):
    own = "    calm: {defenses: [{name: krum, num_byzantine: 2}], attacks: [], adversaries: null}\n  seeds"
    assert list(load(claim_file(("  seeds", own))).curves) == ["free", "attacked", "krum", "calm"]


def test_twins_can_be_left_out_with_a_reason(claim_file):
    path = claim_file(("title:", "without_twins: they take too long\ntitle:"))
    assert "krum_attack_free" not in load(path).curves


def test_an_oracle_is_the_plain_mean_where_nobody_attacks(claim_file):
    path = claim_file(("{name: krum, num_byzantine: 2}", "{name: oracle_sgd}"))
    assert list(load(path).curves) == ["free", "attacked", "krum"]


def test_defenses_count_clients_as_undefended_runs_do(claim_file):
    curves = load(claim_file()).curves
    assert curves["krum"].defenses[0].params["weighting"] == "examples"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_byzantine: 2}", "num_byzantine: 2, weighting: uniform}"),
        ("title:", "weighting: uniform\ntitle:"),  # undefended runs weight by examples
    ],
)
def test_curves_of_different_weighting_are_refused_unless_the_file_says_why(claim_file, old, new):
    with pytest.raises(ConfigError, match=r"differ in two things.*unequal_weighting"):
        load(claim_file((old, new)))
    assert load(claim_file((old, new), ("place:", "unequal_weighting: all have the same number\nplace:")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("place:", "palce:", r"claim.yaml:3: palce: no such key. Did you mean 'place'"),
        (
            "[attacked, krum]}",
            "[attacked, krumm]}",
            r"claim.yaml:8: statements\[0\].order: no curve 'krumm'. Did you mean",
        ),
        ("krum: 0.8", "crum: 0.8", "paper.accuracy: no curve 'crum'. Did you mean 'krum'"),
        ("num_byzantine: 2}", "num_byzantin: 2}", "the curve krum of paper/claim: .*num_byzantin"),
        ("    free:", "    fr/ee:", "must be the name of one folder"),
        ("    attacked: {}", "    attacked: {}\n    again: {}", "attacked and again have the same settings"),
        ("  seeds: [1, 2, 3]\n", "", "seeds is missing; the other forms take it from here"),
        ("statements:", "of: late\nstatements:", "of: must be last"),
        ("count: 2}", "count: 20}", "count"),
        ("seeds: [1, 2, 3]", "seeds: [1, 2, 1]", "small.seeds: has a seed twice"),
        ("    attacked: {}", "    krum_attack_free: {}", "is the name of the attack-free run of krum, which it is not"),
        ("[{name: krum, num_byzantine: 2}]", "krum", "defenses"),
        ("[{name: krum, num_byzantine: 2}]", "[krum]", "defenses"),
        ("simulation: {num_clients: 10, num_rounds: 2}", "simulation: 10", "simulation"),
        ("data: {name: digits}", "output: [runs]", "output"),
        ("place:", "reason: too few rounds\nplace:", "reason: goes with expected"),
        ("place:", "expected: open\nplace:", "reason: goes with expected"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(claim_file, old, new, message):
    with pytest.raises(ConfigError, match=message):
        load(claim_file((old, new)))


def test_a_form_that_is_not_there_is_refused(claim_file):
    with pytest.raises(ConfigError, match=r"has no quick form. Leave out --quick"):
        load(claim_file(), "quick")


def test_the_hash_tells_settings_and_nothing_else(claim_file):
    before = settings_hash(load(claim_file()))
    assert settings_hash(load(claim_file(("title: Krum", "title: Still Krum"), ("[1, 2, 3]", "[4, 5, 6]")))) == before
    assert settings_hash(load(claim_file(("scale: 4.0", "scale: 4.5")))) != before
    assert settings_hash(load(claim_file(), "full")) != before


def test_settings_that_all_curves_share_are_kept_once(claim_file):
    settings = resolved_settings(load(claim_file()))
    assert settings["common"]["training"]["learning_rate"] == 0.1
    assert set(settings["curves"]["krum"]) == {"defenses", "attacks", "adversaries"}


def test_claims_share_the_runs_that_several_ask_for(claim_file, tmp_path):
    one = load(claim_file()).runs(tmp_path)
    other = load(claim_file(("num_byzantine: 2}", "num_byzantine: 1}"))).runs(tmp_path)
    assert one["free", 2] == other["free", 2]
    assert one["krum", 2].name != other["krum", 2].name


# --- those that come with the package ---------------------------------------------------------------------------


def test_every_paper_has_claims():
    assert {name.partition("/")[0] for name in packaged_claims()} == set(PAPERS)


def test_every_paper_has_one_claim_for_continuous_integration():
    quick = [name.partition("/")[0] for name in packaged_claims() if has_form(name, "quick")]
    assert sorted(quick) == sorted(PAPERS)


def test_claims_for_continuous_integration_need_no_files():
    quick = [load_claim(name, "quick") for name in packaged_claims() if has_form(name, "quick")]
    assert {config.data.name for claim in quick for config in claim.curves.values()} == {"digits"}
    assert all(len(claim.seeds) >= 3 for claim in quick)


@pytest.mark.parametrize("name", packaged_claims())
def test_packaged_claims_can_be_run_in_all_their_sizes(name):
    sizes = [size for size in ("small", "full", "quick") if has_form(name, size)]
    claims = {size: load_claim(name, size) for size in sizes}
    assert len(claims["small"].seeds) >= 3
    assert len({settings_hash(claim) for claim in claims.values()}) == len(claims)


def test_names_mean_all_of_a_paper_or_one():
    assert resolve_claims(None) == list(packaged_claims())
    assert resolve_claims("siren/fig6_80") == ["siren/fig6_80"]
    assert all(name.startswith("siren/") for name in resolve_claims("siren"))
    with pytest.raises(ConfigError, match=r"no claim has this name. Did you mean 'siren'"):
        resolve_claims("sirens")
