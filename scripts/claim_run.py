"""One run of a claim: train one agent from one seed, evaluate it at fixed points, append its rows at the end.

`palaestra benchmark` starts one such process for every seed; rows appear only when a run is complete.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
import tyro

from palaestra.agents.evaluation import provenance
from palaestra.agents.evaluation.claims import Claim, Comparator
from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.evaluation.rows import Row, append_rows, make_row
from palaestra.agents.registry import make_agent
from palaestra.agents.training.callbacks import EveryNSteps

Side = Literal["ours", "comparator"]
PILOT_SEED_OFFSET = 1000
"""Pilot runs use seeds this much higher, so that nothing is ever tuned on a claim's own seeds."""


def main(
    claim_file: Path, side: Side, seed: int, rows_file: Path, threads: int = 1, pilot: bool = False, command: str = ""
) -> None:
    """Run one seed of a claim and append its rows.

    Args:
        claim_file: File of the claim.
        side: Which of the claim's two agents to run.
        seed: Seed of the run.
        rows_file: File the rows are appended to.
        threads: Threads torch computes with.
        pilot: Whether this is a trial of a configuration, whose rows prove nothing.
        command: The command the rows name as their maker.
    """
    torch.set_num_threads(threads)
    claim = Claim.from_json(claim_file.read_text(encoding="utf-8"))
    if pilot:
        claim = pilot_claim(claim)
    run = run_ours if side == "ours" else run_comparator
    rows = run(claim, seed, command or provenance.command_line())
    append_rows(rows_file, rows)
    print(f"{claim.name}, {side}, seed {seed}: {claim.metric} {rows[-1].metric(claim.metric)}")


def pilot_claim(claim: Claim) -> Claim:
    """Return the claim as a pilot tries it: other seeds, and whatever configuration the preset gives now."""
    seeds = tuple(seed + PILOT_SEED_OFFSET for seed in claim.seeds)
    return dataclasses.replace(claim, seeds=seeds, config_hash=configuration(claim)[1])


def configuration(claim: Claim) -> tuple[dict[str, Any], str]:
    """Return the configuration that the claim's preset gives now, and its digest."""
    agent = _make_agent(claim, seed=0)
    config = provenance.plain(agent.config)
    return config, provenance.config_hash(claim.agent, config)


class Recorder:
    """Evaluates one run at fixed points; its clock stands still meanwhile."""

    def __init__(
        self,
        claim: Claim,
        seed: int,
        agent_id: str,
        agent_config: Mapping[str, Any],
        command: str,
        train_backend: str | None = None,
    ) -> None:
        """Start the clock.

        Args:
            claim: The claim.
            seed: Seed of the run.
            agent_id: Id of the agent that is run.
            agent_config: Its configuration.
            command: The command the rows name as their maker.
            train_backend: What the agent is trained on.
        """
        provenance.git_state()  # What is about to run is the code as it stands now.
        self.claim = claim
        self.identity: dict[str, Any] = {
            "agent_id": agent_id,
            "agent_config": agent_config,
            "seed": seed,
            "budget": claim.budget,
            "command": command,
            "claim": claim.name,
            "claim_hash": claim.digest(),
            "train_backend": train_backend,
        }
        self.rows: list[Row] = []
        self.meter = provenance.CpuMeter()
        self.trained = 0.0
        self.resumed = time.perf_counter()

    def record(self, policy: Any, kind: Literal["final", "curve"], env_steps: int, updates: int) -> None:
        """Evaluate a policy and keep the row."""
        self.trained += time.perf_counter() - self.resumed
        evaluation = evaluate(
            policy,
            self.claim.env,
            env_kwargs=self.claim.env_kwargs,
            episodes=self.claim.eval_episodes,
            seed=self.identity["seed"],
            deterministic=self.claim.deterministic,
        )
        row = make_row(
            evaluation,
            kind=kind,
            env_steps=env_steps,
            updates=updates,
            wall_seconds=self.trained,
            idle_cpu=self.meter.idle_share(),
            **self.identity,
        )
        self.rows.append(row)
        measured = row.metric(self.claim.metric)
        print(f"{env_steps} steps, {self.trained:.0f} s: {self.claim.metric} {measured}", flush=True)
        self.resumed = time.perf_counter()


class LearningCurve(EveryNSteps):
    """Records a point of the learning curve every so many env steps; the end of the budget is the final row's."""

    def __init__(self, recorder: Recorder) -> None:
        """Record on behalf of a run.

        Args:
            recorder: The run's recorder.
        """
        super().__init__(recorder.claim.eval_every)
        self.recorder = recorder

    def on_start(self, agent: Any) -> None:
        """Record the untrained agent."""
        super().on_start(agent)
        self.run(agent)

    def run(self, agent: Any) -> None:
        """Record a point."""
        if agent.num_timesteps < self.recorder.claim.budget:
            self.recorder.record(agent, "curve", agent.num_timesteps, agent.num_updates)


def run_ours(claim: Claim, seed: int, command: str) -> list[Row]:
    """Train and evaluate the claim's own agent; return its rows, the final one last.

    Raises:
        ValueError: If the configuration is not the one the claim was registered with.
    """
    agent = _make_agent(claim, seed)
    config = provenance.plain(agent.config)
    found = provenance.config_hash(claim.agent, config)
    if found != claim.config_hash:
        raise ValueError(f"{claim.name}: the preset's config hash is {found}; expected the claim's {claim.config_hash}")
    recorder = Recorder(claim, seed, claim.agent, config, command, agent.backend)
    agent.learn(claim.budget, callback=LearningCurve(recorder))
    recorder.record(agent, "final", agent.num_timesteps, agent.num_updates)
    return recorder.rows


def run_comparator(claim: Claim, seed: int, command: str) -> list[Row]:
    """Train the claim's comparator with stable-baselines3 and evaluate it as ours is; return its rows.

    Raises:
        ValueError: If the claim has no comparator, or one of another library.
    """
    if claim.comparator is None:
        raise ValueError(f"{claim.name}: has no comparator; expected one")
    model = _make_peer(claim.comparator, claim.env, claim.env_kwargs, seed)
    policy = PeerPolicy(model)
    recorder = Recorder(claim, seed, claim.comparator.agent, claim.comparator.row_config(), command)
    recorder.record(policy, "curve", 0, 0)
    due = claim.eval_every

    def on_step(local_variables: dict[str, Any], global_variables: dict[str, Any]) -> bool:
        nonlocal due
        if due <= model.num_timesteps < claim.budget:
            due = (model.num_timesteps // claim.eval_every + 1) * claim.eval_every
            recorder.record(policy, "curve", model.num_timesteps, model._n_updates)
        return True

    model.learn(claim.budget, callback=on_step)
    recorder.record(policy, "final", model.num_timesteps, model._n_updates)
    return recorder.rows


class PeerPolicy:
    """A stable-baselines3 model behind the suite's `predict`."""

    def __init__(self, model: Any) -> None:
        """Wrap a model.

        Args:
            model: A model of stable-baselines3 or sb3-contrib.
        """
        self.model = model
        self.masked = "action_masks" in inspect.signature(model.predict).parameters

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        *,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """Return the model's actions; masks reach only models that know them."""
        keywords = {"action_masks": action_masks} if self.masked else {}
        actions, state = self.model.predict(
            observation, state=state, episode_start=episode_start, deterministic=deterministic, **keywords
        )
        return actions, state


def _make_agent(claim: Claim, seed: int) -> Any:
    return make_agent(
        claim.agent, claim.env, seed=seed, device="cpu", preset_name=claim.preset, env_kwargs=dict(claim.env_kwargs)
    )


def _make_peer(comparator: Comparator, env_id: str, env_kwargs: Mapping[str, Any], seed: int) -> Any:
    library, _, name = comparator.agent.partition("/")
    if library != "sb3":
        raise ValueError(f"comparator: agent={comparator.agent!r}; expected 'sb3/' and the name of an algorithm")
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env

    algorithm = getattr(stable_baselines3, name.upper(), None)
    if algorithm is None:
        raise ValueError(f"comparator: stable-baselines3 has no {name.upper()}; expected one of its algorithms")
    env = make_vec_env(lambda: gym.make(env_id, **env_kwargs), n_envs=comparator.num_envs, seed=seed)
    return algorithm(env=env, seed=seed, device="cpu", **comparator.config)


if __name__ == "__main__":
    tyro.cli(main)
