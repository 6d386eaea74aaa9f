"""Claims in their long form: arms with what they share, grids of agents and envs, and digests that pin it all."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from palaestra.agents.evaluation.claim_files import make_claim, parse_claim, with_registered

DOCUMENTED = Path(__file__).parents[3] / "docs" / "architecture.md"

RECORD = {
    "name": "two-ways",
    "system": "A Paper",
    "statement": "One is better.",
    "arms": {
        "props": {"agent": "props", "config": {"n_batches": 3}},
        "ppo": {"agent": "ppo", "preset": None, "budget": 2000},
    },
    "env": "CartPole-v1",
    "env_kwargs": {"sutton_barto_reward": False},
    "config": {"hidden": [32], "n_steps": 8},
    "budget": 1000,
    "eval_every": 100,
    "seeds": [0, 1, 2],
    "eval_episodes": 2,
    "criteria": [{"metric": "mean_return", "contrast": {"props": 1, "ppo": -1}, "at_least": 0}],
    "tuning_budget": "none",
}


def record_of(**fields):
    return {**copy.deepcopy(RECORD), **fields}


def test_arms_take_what_stands_beside_them_and_their_own_wins():
    claim = make_claim(RECORD)
    props, ppo = claim.arms
    assert (props.name, props.agent, props.preset, props.budget) == ("props", "props", "auto", 1000)
    assert (ppo.name, ppo.agent, ppo.preset, ppo.budget) == ("ppo", "ppo", None, 2000)
    assert props.config == {"hidden": [32], "n_steps": 8, "n_batches": 3}
    assert ppo.config == {"hidden": [32], "n_steps": 8}
    assert props.env_kwargs == ppo.env_kwargs == {"sutton_barto_reward": False}
    assert props.config_hash is None


def test_an_arm_may_be_measured_in_its_own_way():
    arms = {"plain": {}, "scaled": {"training": {"reward_scale": 9}, "measures": {"bias": {"scale": 9}, "rate": {}}}}
    claim = make_claim(record_of(arms=arms, agent="sac", measures={"bias": {"episodes": 5}}, criteria=[]))
    assert claim.arm("plain").measures == {"bias": {"episodes": 5}}
    assert claim.arm("scaled").measures == {"bias": {"scale": 9}, "rate": {}}


def test_a_grid_runs_every_agent_on_every_env():
    envs = {"Hopper-v5": {"budget": 10}, "heavy": {"env": "Pendulum-v1", "env_kwargs": {"g": 20.0}}}
    claim = make_claim(record_of(envs=envs, criteria=[], arms={"sac": {"agent": "sac"}, "td3": {"agent": "td3"}}))
    assert [(arm.name, arm.env, arm.budget) for arm in claim.arms] == [
        ("sac on Hopper-v5", "Hopper-v5", 10),
        ("sac on heavy", "Pendulum-v1", 1000),
        ("td3 on Hopper-v5", "Hopper-v5", 10),
        ("td3 on heavy", "Pendulum-v1", 1000),
    ]
    assert claim.arm("sac on heavy").env_kwargs == {"sutton_barto_reward": False, "g": 20.0}
    assert claim.is_table
    assert claim.reported == ("mean_return",)


def test_registration_is_by_arm_in_the_long_form_and_one_digest_in_the_short():
    registered = with_registered(RECORD, {"props": "1" * 16, "ppo": "2" * 16})
    assert [arm.config_hash for arm in make_claim(registered).arms] == ["1" * 16, "2" * 16]
    assert with_registered({"agent": "sac", "margin": 1}, {"sac": "3" * 16}) == {
        "agent": "sac", "margin": 1, "config_hash": "3" * 16,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"config_hashes of \['other'\]"):
        make_claim(with_registered(RECORD, {"other": "1" * 16}))


def changed(record, *path, value):
    record = copy.deepcopy(record)
    inner = record
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("arms", "props", "config", "n_batches"), 2),
        (("arms", "ppo", "budget"), 2001),
        (("arms", "ppo", "training"), {"reward_scale": 2.0}),
        (("config", "hidden"), [33]),
        (("env_kwargs", "sutton_barto_reward"), True),
        (("criteria",), []),
        (("measures",), {"goal-visits": {}}),
        (("config_hashes",), {"ppo": "0" * 16}),
        (("eval_episodes",), 3),
    ],
    ids=str,
)
def test_everything_that_decides_is_in_the_digest(path, value):
    assert make_claim(changed(RECORD, *path, value=value)).digest() != make_claim(RECORD).digest()


@pytest.mark.parametrize("name", ["statement", "tuning_budget"])
def test_words_are_not(name):
    assert make_claim(record_of(**{name: "Other words."})).digest() == make_claim(RECORD).digest()
    assert make_claim(record_of(metrics=["wall_seconds"])).digest() == make_claim(RECORD).digest()


def test_the_short_form_pins_a_configuration_where_it_has_one():
    short = {
        "name": "sac",
        "system": "A Paper",
        "statement": "SAC is good.",
        "agent": "sac",
        "env": "Pendulum-v1",
        "metric": "mean_return",
        "criterion": "mean_at_least",
        "margin": -200.0,
        "budget": 1000,
        "seeds": [0, 1],
        "eval_every": 100,
        "eval_episodes": 2,
        "tuning_budget": "none",
    }
    pinned = make_claim({**short, "config": {"gamma": 0.9}})
    assert pinned.arms[0].config == {"gamma": 0.9}
    assert pinned.digest() != make_claim(short).digest()
    # What was left out is in the digest as what it means.
    spelt_out = {**short, "preset": "auto", "env_kwargs": {}, "comparator": None, "deterministic": True}
    assert make_claim(spelt_out).digest() == make_claim(short).digest()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": {}}, "arms="),
        ({"arms": {"ppo": {"agent": "ppo", "colour": 1}}}, "arm 'ppo': keys .*colour"),
        ({"arms": {"ppo": {"agent": "ppo", "label": "x"}}}, "arm 'ppo': keys .*label"),
        ({"colour": 1}, "colour"),
        ({"criteria": [{"metric": "mean_return", "at_least": 0}]}, "contrast"),
        ({"criteria": [{"metric": "mean_return", "contrast": {"sac": 1}, "at_least": 0}]}, "arms among"),
        ({"criteria": [{"metric": "mean_return", "contrast": {"ppo": 1}}]}, "exactly one of"),
        ({"criteria": [{"metric": "mean_return", "contrast": {"ppo": 1}, "at_least": 0, "at_most": 1}]}, "exactly one"),
        ({"criteria": [{"metric": "mean_return", "contrast": {"ppo": 0}, "at_least": 0}]}, "other than 0"),
        ({"criteria": [{"metric": "mean_return", "contrast": {"ppo": 1}, "within": -1}]}, "within=-1"),
        ({"criteria": [{"metric": "return", "contrast": {"ppo": 1}, "at_least": 0}]}, "metric='return'"),
        (
            {"criteria": [{"metric": "mean_return", "contrast": {"ppo": 1}, "at_least": 0, "threshold": 1}]},
            "threshold=1",
        ),
        (
            {"criteria": [{"metric": "mean_return", "contrast": {"ppo": 1}, "at_least": 0, "summary": "best"}]},
            "summary='best'",
        ),
        (
            {"criteria": [{"metric": "mean_return", "contrast": {"ppo": 1}, "at_least": 0, "axis": "days"}]},
            "axis='days'",
        ),
        (
            {
                "criteria": [
                    {"metric": "success", "contrast": {"ppo": 1, "props": 1}, "at_least": 0, "over": "each_seed"}
                ]
            },
            "over='each_seed'",
        ),
        ({"metrics": ["colour"]}, "metric='colour'"),
        ({"arms": {"ppo": {"agent": "ppo", "budget": 0}}, "criteria": []}, "budget=0"),
        ({"arms": {"best": {"agent": "policy/optimal"}}, "criteria": []}, "0 steps for a policy of the world"),
    ],
)
def test_claims_that_could_not_run_or_be_decided_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_claim(record_of(**fields))


def test_arms_on_different_envs_are_not_compared():
    arms = {"ppo": {"agent": "ppo"}, "props": {"agent": "props", "env": "Acrobot-v1"}}
    with pytest.raises(ValueError, match="arms on one env id"):
        make_claim(record_of(arms=arms))


def test_the_documented_claim_says_what_the_page_says():
    text = DOCUMENTED.read_text(encoding="utf-8").partition("```json\n")[2].partition("```")[0]
    claim = parse_claim(text)
    assert [arm.name for arm in claim.arms] == ["sac", "sac x100", "td3"]
    assert claim.arm("sac x100").training == {"reward_scale": 100}
    assert [criterion.within for criterion in claim.criteria] == [20, None]
    assert [criterion.threshold for criterion in claim.criteria] == [None, -200]
