"""The table of systems: the one that ships is what declarations and rows give, and what it names exists."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from palaestra import cli, systems

REPOSITORY = Path(__file__).parents[1]
SHIPPED = REPOSITORY / "palaestra" / "systems.json"


def declared(**fields):
    defaults = {"title": "A Paper", "short": "AP", "kind": "agent", "reach": "ap", "tests": ("tests/test_a.py",)}
    return systems.Declaration(**{**defaults, **fields})


def test_the_shipped_table_is_the_computed_one():
    computed = systems.build_table(REPOSITORY / "results")
    assert SHIPPED.read_text(encoding="utf-8") == systems.table_text(computed)
    assert systems.load_table() == computed


@pytest.mark.parametrize(
    ("short", "test"), [(entry.short, test) for entry in systems.DECLARED for test in entry.tests], ids=str
)
def test_every_test_named_exists(short, test):
    file, _, name = test.partition("::")
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert any(function.startswith("test_") for function in functions)
    assert not name or name in functions


def test_titles_and_short_names_are_unique():
    for names in ([entry.title for entry in systems.DECLARED], [entry.short for entry in systems.DECLARED]):
        assert len(set(names)) == len(names)


def test_agents_are_reached_by_their_ids():
    from palaestra.agents.registry import agent_ids

    assert {entry.reach for entry in systems.DECLARED if entry.kind == "agent"} <= set(agent_ids())


def test_sac_is_exact_with_its_tests_and_verdicts():
    sac = next(entry for entry in systems.load_table() if entry.short == "SAC")
    assert sac.title == "Soft Actor-Critic Algorithms and Applications"
    assert sac.status == "exact"
    assert {shown.claim for shown in sac.claims} == {"sac-pendulum", "sac-halfcheetah-vs-sb3"}
    assert sac.verdict in ("shown", "refuted", "inconclusive", "none yet")


def test_a_system_without_tests_does_not_appear():
    with pytest.raises(ValueError, match=r"tests=\(\)"):
        declared(tests=())


def test_a_system_has_claims_of_its_own_or_none():
    entry = systems.build_table(REPOSITORY / "results", (declared(),))[0]
    assert (entry.claims, entry.status, entry.verdict) == ((), "exact", "none yet")
    for name in ("no-such-claim", "sac-pendulum"):
        with pytest.raises(ValueError, match=name):
            systems.build_table(REPOSITORY / "results", (declared(claims=(name,)),))


def test_the_table_prints_as_text_and_json(capsys):
    assert cli.main(["systems"]) == 0
    text = capsys.readouterr().out
    assert "SAC: Soft Actor-Critic Algorithms and Applications" in text
    assert "test: tests/agents/actor_critic/test_sac.py" in text
    assert cli.main(["systems", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(SHIPPED.read_text(encoding="utf-8"))


def test_the_table_is_made_anew_from_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(systems, "_table_file", lambda: tmp_path / "systems.json")
    systems.write_table(REPOSITORY / "results")
    assert (tmp_path / "systems.json").read_text(encoding="utf-8") == SHIPPED.read_text(encoding="utf-8")


def test_reading_the_table_imports_neither_torch_nor_scipy():
    program = (
        "import sys; from palaestra import systems; systems.render(); print({'torch', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
