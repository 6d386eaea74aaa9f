"""The table of systems: what of the literature the suite implements, how it is proved, and what was shown of it.

A system is declared here with the tests that prove its identities and the claims that demonstrate it. The table with
their verdicts ships as `systems.json`, so that reading it needs neither the tests nor the rows.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Declaration:
    """A system of the suite.

    Attributes:
        title: Exact title of its paper.
        short: Short name.
        kind: "agent", "env", "recipe", "wrapper", "evaluator", ...
        reach: How to reach it: an id, or "package.module:name".
        tests: Test files, or tests as "file::function", that prove its identities; at least one.
        claims: Names of the claims that demonstrate it.
    """

    title: str
    short: str
    kind: str
    reach: str
    tests: tuple[str, ...]
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse systems without tests: they do not appear in the table."""
        if not self.tests:
            raise ValueError(f"Declaration: {self.title!r} has tests=(); expected at least one test")


@dataclass(frozen=True)
class Demonstration:
    """A claim about a system.

    Attributes:
        claim: Its name.
        verdict: "shown", "refuted", "inconclusive" or "none yet".
        rows: File of its rows.
        command: The command that makes them.
    """

    claim: str
    verdict: str
    rows: str
    command: str


@dataclass(frozen=True)
class SystemEntry:
    """A line of the table.

    Attributes:
        title: Exact title of the paper.
        short: Short name.
        kind: "agent", "env", "recipe", ...
        reach: How to reach it.
        tests: The tests that prove its identities.
        claims: Its demonstrations.
        status: "exact": its identities pass as tests, without which it would not be here.
        verdict: The verdict on its claims together: "shown", "refuted", "inconclusive" or "none yet".
    """

    title: str
    short: str
    kind: str
    reach: str
    tests: tuple[str, ...]
    claims: tuple[Demonstration, ...]
    verdict: str
    status: str = "exact"


DECLARED: tuple[Declaration, ...] = (
    Declaration(
        title="Soft Actor-Critic Algorithms and Applications",
        short="SAC",
        kind="agent",
        reach="sac",
        tests=(
            "tests/agents/actor_critic/test_sac.py",
            "tests/agents/actor_critic/test_soft_optimum.py",
            "tests/agents/test_sb3_oracle.py",
        ),
        claims=("sac-pendulum", "sac-halfcheetah-vs-sb3"),
    ),
    Declaration(
        title="Distributional Soft Actor-Critic with Three Refinements",
        short="DSAC-T",
        kind="agent",
        reach="dsac-t",
        tests=(
            "tests/agents/actor_critic/test_dsac.py",
            "tests/agents/losses/test_gaussian_values.py",
            "tests/agents/nn/test_critic_heads.py",
            "tests/agents/nn/test_estimates.py",
        ),
        claims=("dsac-t-reward-scale", "dsac-reward-scale", "dsac-t-overestimation"),
    ),
    Declaration(
        title="Mirror Descent Policy Optimization",
        short="MDPO",
        kind="agent",
        reach="mdpo",
        tests=(
            "tests/agents/policy_gradient/test_mdpo.py",
            "tests/agents/actor_critic/test_mdpo_off.py",
            "tests/agents/losses/test_ratios.py",
        ),
        claims=(
            "mdpo-cartpole-inner-steps",
            "mdpo-off-pendulum",
        ),
    ),
    Declaration(
        title="Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning",
        short="PMOE",
        kind="agent",
        reach="pmoe",
        tests=(
            "tests/agents/actor_critic/test_pmoe.py",
            "tests/agents/policy_gradient/test_pmoe_ppo.py",
            "tests/agents/nn/test_mixtures.py",
            "tests/agents/losses/test_gates.py",
        ),
        claims=("pmoe-multigoal-visits",),
    ),
    Declaration(
        title="Overcoming Slow Decision Frequencies in Continuous Control: "
        "Model-Based Sequence Reinforcement Learning for Model-Free Control",
        short="SRL and FAS",
        kind="agent",
        reach="srl",
        tests=(
            "tests/agents/actor_critic/test_srl.py",
            "tests/agents/evaluation/test_decision_frequency.py",
        ),
        claims=("srl-pendulum-decision-frequency",),
    ),
    Declaration(
        title="On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling",
        short="PROPS",
        kind="agent",
        reach="props",
        tests=("tests/agents/policy_gradient/test_props.py",),
        claims=(
            "props-slip-lake-sampling-error",
            "props-cartpole-data-efficiency",
        ),
    ),
    Declaration(
        title="Stochastic Policy Gradient Methods: Improved Sample Complexity for Fisher-non-degenerate Policies",
        short="N-PG-IGT, (N-)HARPG",
        kind="agent",
        reach="n-harpg",
        tests=("tests/agents/policy_gradient/test_harpg.py",),
        claims=(
            "n-harpg-kuhn-gradient-error",
            "n-harpg-cartpole-trajectories",
            "n-pg-igt-cartpole-trajectories",
        ),
    ),
    Declaration(
        title="Bayesian policy gradient and actor-critic algorithms",
        short="BPG / BAC",
        kind="agent",
        reach="bac",
        tests=(
            "tests/agents/policy_gradient/test_bpg.py",
            "tests/agents/policy_gradient/test_bpg_on_lqr.py",
            "tests/agents/losses/test_bayesian_quadrature.py",
        ),
        claims=("bpg-kuhn-gradient-error",),
    ),
    Declaration(
        title="Offline Data Enhanced On-Policy Policy Gradient with Provable Guarantees",
        short="HNPG / HAC",
        kind="agent",
        reach="hnpg",
        tests=(
            "tests/agents/policy_gradient/test_hnpg.py",
            "tests/agents/training/test_natural_gradient.py",
            "tests/envs/control/test_combination_lock.py",
        ),
        claims=("hnpg-combination-lock",),
    ),
    Declaration(
        title="GoRL: An Algorithm-Agnostic Framework for Online Reinforcement Learning with Generative Policies",
        short="GoRL",
        kind="agent",
        reach="gorl",
        tests=(
            "tests/agents/policy_gradient/test_gorl.py",
            "tests/agents/nn/generative/test_flow.py",
            "tests/agents/losses/test_ratios.py",
        ),
        claims=("generative-multigoal-visits",),
    ),
    Declaration(
        title="PolicyFlow: Policy Optimization with Continuous Normalizing Flow in Reinforcement Learning",
        short="PolicyFlow",
        kind="agent",
        reach="policyflow",
        tests=(
            "tests/agents/policy_gradient/test_policyflow.py",
            "tests/agents/losses/test_flow_ratios.py",
            "tests/agents/nn/generative/test_flow.py",
            "tests/agents/evaluation/test_ratio_error.py",
        ),
        claims=("policyflow-multigoal-bending", "flow-ratio-errors"),
    ),
    Declaration(
        title="EXPO: Stable Reinforcement Learning with Expressive Policies",
        short="EXPO",
        kind="agent",
        reach="expo",
        tests=(
            "tests/agents/actor_critic/test_expo.py",
            "tests/agents/nn/test_edits.py",
            "tests/agents/nn/test_candidates.py",
            "tests/agents/nn/test_ensemble.py",
            "tests/agents/training/test_prior_data.py",
        ),
        claims=("expo-point-maze",),
    ),
    Declaration(
        title="Policy Agnostic RL: Offline RL and Online RL Fine-Tuning of Any Class and Backbone",
        short="PA-RL",
        kind="agent",
        reach="pa-rl",
        tests=(
            "tests/agents/actor_critic/test_pa_rl.py",
            "tests/agents/nn/test_actor_classes.py",
            "tests/agents/nn/test_candidates.py",
            "tests/agents/nn/test_hill_climbing.py",
        ),
        claims=("pa-rl-point-maze",),
    ),
    Declaration(
        title="Deep Reinforcement Learning for Inventory Networks: Toward Reliable Policy Optimization",
        short="HDPO",
        kind="agent",
        reach="hdpo",
        tests=(
            "tests/agents/pathwise/test_hdpo.py",
            "tests/agents/pathwise/test_policies.py",
            "tests/agents/pathwise/test_newsvendor_policies.py",
            "tests/agents/pathwise/test_elu.py",
            "tests/agents/pathwise/test_other_networks.py",
            "tests/envs/inventory/test_exact_costs.py",
            "tests/envs/inventory/test_networks_with_bounds.py",
            "tests/envs/inventory/test_retail.py",
        ),
        claims=(
            "hdpo-one-store-backlog",
            "hdpo-one-store-lost",
            "hdpo-serial",
            "hdpo-transshipment",
            "hdpo-one-warehouse",
            "hdpo-gnn-data-efficiency",
            "hdpo-gnn-more-stores",
            "hdpo-one-store-backlog-against-learners",
            "hdpo-retail-store",
            "hdpo-retail-store-real",
        ),
    ),
    Declaration(
        title="A Reinforcement Learning Method for Environments with Stochastic Variables: "
        "Post-Decision Proximal Policy Optimization with Dual Critic Networks",
        short="PDPPO",
        kind="agent",
        reach="pdppo",
        tests=("tests/agents/policy_gradient/test_pdppo.py",),
        claims=("pdppo-lot-sizing-easy", "pdppo-lot-sizing-i5m2", "pdppo-lot-sizing-i15m5", "pdppo-slip-lake"),
    ),
    Declaration(
        title="Efficiently Training Deep-Learning Parametric Policies using Lagrangian Duality",
        short="TS-DDR",
        kind="agent",
        reach="ts-ddr",
        tests=(
            "tests/agents/pathwise/test_ts_ddr.py",
            "tests/agents/pathwise/test_target_programme.py",
            "tests/envs/energy/test_hydro_1r.py",
            "tests/envs/energy/test_hydro_system.py",
        ),
        claims=("ts-ddr-hydro-1r", "ts-ddr-hydro-1r-vs-learners", "ts-ddr-hydro-cascade-11"),
    ),
    Declaration(
        title="Two-Stage Constrained Actor-Critic for Short Video Recommendation",
        short="TSCAC",
        kind="agent",
        reach="tscac",
        tests=("tests/agents/constrained/test_tscac.py", "tests/agents/losses/test_constrained.py"),
        claims=("tscac-rec-feed",),
    ),
    Declaration(
        title="ProRL: Effective Reinforcement Learning for Proactive Recommendation via Rectified Policy Gradient "
        "Estimation",
        short="ProRL",
        kind="agent",
        reach="prorl",
        tests=("tests/agents/policy_gradient/test_prorl.py", "tests/agents/losses/test_path_advantages.py"),
        claims=("prorl-rec-guide",),
    ),
)


def build_table(results: Path, declared: tuple[Declaration, ...] = DECLARED) -> list[SystemEntry]:
    """Return the table with the verdicts that the rows give.

    Args:
        results: Folder of claims and rows.
        declared: The systems.

    Raises:
        ValueError: If a system names a claim that is not among the claims, or one about another system.
    """
    # Computing verdicts needs SciPy; whoever only reads the table does not wait for it.
    from palaestra.agents.evaluation.claim_files import read_claims
    from palaestra.agents.evaluation.rows import read_rows
    from palaestra.agents.evaluation.verdicts import overall, verdict

    claims = {claim.name: claim for claim in read_claims(results / "claims")}
    entries = []
    for system in declared:
        strangers = [name for name in system.claims if name not in claims or claims[name].system != system.title]
        if strangers:
            raise ValueError(
                f"{system.short}: claims {strangers} are missing or about another system; expected its own"
            )
        verdicts = {name: verdict(claims[name], read_rows(results / f"{name}.jsonl")).status for name in system.claims}
        demonstrations = tuple(
            Demonstration(name, found, f"results/{name}.jsonl", f"palaestra benchmark {name}")
            for name, found in verdicts.items()
        )
        together = overall(list(verdicts.values()))
        entries.append(
            SystemEntry(system.title, system.short, system.kind, system.reach, system.tests, demonstrations, together)
        )
    return entries


def table_text(entries: list[SystemEntry]) -> str:
    """Return the table as the text of `systems.json`."""
    return json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2, ensure_ascii=False) + "\n"


def load_table() -> list[SystemEntry]:
    """Return the table that ships with the package."""
    records: list[dict[str, Any]] = json.loads(_table_file().read_text(encoding="utf-8"))
    return [
        SystemEntry(
            **{
                **record,
                "tests": tuple(record["tests"]),
                "claims": tuple(Demonstration(**claim) for claim in record["claims"]),
            }
        )
        for record in records
    ]


def render(as_json: bool = False) -> str:
    """Return the table that ships with the package, for reading or as JSON."""
    entries = load_table()
    if as_json:
        return table_text(entries).rstrip("\n")
    blocks = []
    for entry in entries:
        lines = [
            f"{entry.short}: {entry.title}",
            f"  {entry.kind}, reached as {entry.reach}",
            f"  status: {entry.status}, {entry.verdict}",
        ]
        lines += [f"  test: {test}" for test in entry.tests]
        lines += [f"  claim {shown.claim}: {shown.verdict} ({shown.rows}; {shown.command})" for shown in entry.claims]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def write_table(results: Path) -> None:
    """Make the table that ships with the package anew from claims and rows (in a checkout).

    Args:
        results: Folder of claims and rows.
    """
    Path(str(_table_file())).write_text(table_text(build_table(results)), encoding="utf-8")


def _table_file() -> Any:
    return resources.files("palaestra") / "systems.json"
