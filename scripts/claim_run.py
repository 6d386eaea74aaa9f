"""One run of a claim: train one arm from one seed, evaluate it at fixed points, append its rows at the end.

`palaestra benchmark` starts one such process for every run; rows appear only when a run is complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from operator import mul
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro

from palaestra.agents.evaluation import provenance
from palaestra.agents.evaluation.claim_files import make_claim, parse_claim, with_registered
from palaestra.agents.evaluation.claims import Arm, Claim
from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.evaluation.measures import measure_all
from palaestra.agents.evaluation.rows import Row, append_rows, make_row
from palaestra.agents.registry import agent_class, import_agent, make_agent, preset
from palaestra.agents.training.callbacks import EveryNSteps
from palaestra.agents.training.config import make_config
from palaestra.scripts.peer_policy import PeerPolicy
from palaestra.wrappers.vectorize import make_vec

PILOT_SEED_OFFSET = 1000
"""Pilot runs use seeds this much higher, so that nothing is ever tuned on a claim's own seeds."""


def main(
    claim_file: Path, arm: str, seed: int, rows_file: Path, threads: int = 1, pilot: bool = False, command: str = ""
) -> None:
    """Run one seed of one of a claim's arms and append its rows.

    Args:
        claim_file: File of the claim.
        arm: Name of the arm.
        seed: Seed of the run.
        rows_file: File the rows are appended to.
        threads: Threads torch computes with.
        pilot: Whether this is a trial of a configuration, whose rows prove nothing.
        command: The command the rows name as their maker.
    """
    torch.set_num_threads(threads)
    claim = parse_claim(claim_file.read_text(encoding="utf-8"))
    if pilot:
        claim = pilot_claim(claim)
    append_rows(rows_file, run_arm(claim, claim.arm(arm), seed, command or provenance.command_line()))


def pilot_claim(claim: Claim) -> Claim:
    """Return the claim as a pilot tries it: other seeds, and whatever configurations its agents have now."""
    seeds = [seed + PILOT_SEED_OFFSET for seed in claim.seeds]
    return make_claim({**with_registered(claim.record, configuration_hashes(claim)), "seeds": seeds})


def configuration_hashes(claim: Claim) -> dict[str, str]:
    """Return the digests of the configurations that a claim's agents of the suite have now, by arm."""
    return {arm.name: configuration(arm)[1] for arm in claim.arms if arm.kind == "ours"}


def configuration(arm: Arm) -> tuple[dict[str, Any], str]:
    """Return the configuration that an agent of the suite has now, and its digest."""
    config = provenance.plain(_make_ours(arm, seed=0).config)
    return config, provenance.config_hash(arm.agent, config)


class Recorder:
    """Evaluates one run at fixed points; its clock stands still meanwhile."""

    def __init__(
        self,
        claim: Claim,
        arm: Arm,
        seed: int,
        command: str,
        agent_config: Mapping[str, Any],
        train_backend: str | None = None,
    ) -> None:
        """Start the clock.

        Args:
            claim: The claim.
            arm: The arm that is run.
            seed: Seed of the run.
            command: The command the rows name as their maker.
            agent_config: The configuration that the rows hold.
            train_backend: What the agent is trained on.
        """
        provenance.git_state()  # What is about to run is the code as it stands now.
        self.claim, self.arm, self.seed = claim, arm, seed
        self.identity: dict[str, Any] = {
            "agent_id": arm.agent,
            "agent_config": agent_config,
            "seed": seed,
            "budget": arm.budget,
            "command": command,
            "claim": claim.name,
            "claim_hash": claim.digest(),
            "arm": arm.name,
            "training": arm.training,
            "train_backend": train_backend,
        }
        self.rows: list[Row] = []
        self.meter = provenance.CpuMeter()
        self.trained = 0.0
        self.resumed = time.perf_counter()

    def record(
        self, policy: Any, kind: Literal["final", "curve"], *, env_steps: int, updates: int, episodes: int
    ) -> None:
        """Evaluate a policy and keep the row."""
        self.trained += time.perf_counter() - self.resumed
        evaluation = evaluate(
            policy,
            self.arm.env,
            env_kwargs=self.arm.env_kwargs,
            episodes=self.claim.eval_episodes,
            seed=self.seed,
            deterministic=self.claim.deterministic,
        )
        measures = measure_all(self.arm.measures, policy, self.arm.env, self.arm.env_kwargs, self.seed)
        row = make_row(
            evaluation,
            kind=kind,
            env_steps=env_steps,
            updates=updates,
            episodes=episodes,
            measures=measures,
            wall_seconds=self.trained,
            idle_cpu=self.meter.idle_share(),
            **self.identity,
        )
        self.rows.append(row)
        told = "; ".join(f"{name} {row.metric(name)}" for name in self.claim.reported)
        print(f"{env_steps} steps, {self.trained:.0f} s: {told}", flush=True)
        self.resumed = time.perf_counter()


class LearningCurve(EveryNSteps):
    """Records a point of the learning curve every so many env steps; the end of the budget is the final row's."""

    def __init__(self, recorder: Recorder) -> None:
        """Record on behalf of a run.

        Args:
            recorder: The run's recorder.
        """
        super().__init__(recorder.arm.eval_every)
        self.recorder = recorder

    def on_start(self, agent: Any) -> None:
        """Record the untrained agent."""
        super().on_start(agent)
        self.run(agent)

    def run(self, agent: Any) -> None:
        """Record a point."""
        if agent.num_timesteps < self.recorder.arm.budget:
            self.record(agent, "curve")

    def record(self, agent: Any, kind: Literal["final", "curve"]) -> None:
        """Record where an agent stands."""
        done, made, ended = agent.num_timesteps, agent.num_updates, agent.collector.episodes
        self.recorder.record(agent, kind, env_steps=done, updates=made, episodes=ended)


def run_arm(claim: Claim, arm: Arm, seed: int, command: str) -> list[Row]:
    """Train and evaluate one arm from one seed; return its rows, the final one last.

    Raises:
        ValueError: If its configuration is not the one the claim was registered with, or a peer is unknown.
    """
    return _RUNS[arm.kind](claim, arm, seed, command)


def _run_ours(claim: Claim, arm: Arm, seed: int, command: str) -> list[Row]:
    agent = _make_ours(arm, seed)
    config = provenance.plain(agent.config)
    found = provenance.config_hash(arm.agent, config)
    if found != arm.config_hash:
        raise ValueError(f"{claim.name}, {arm.name}: config hash is {found}; expected the claim's {arm.config_hash}")
    recorder = Recorder(claim, arm, seed, command, config, agent.backend)
    curve = LearningCurve(recorder)
    agent.learn(arm.budget, callback=curve)
    curve.record(agent, "final")
    return recorder.rows


def _run_peer(claim: Claim, arm: Arm, seed: int, command: str) -> list[Row]:
    model = _make_peer(arm, seed)
    policy = PeerPolicy(model)
    recorder = Recorder(claim, arm, seed, command, arm.row_config())

    def record(kind: Literal["final", "curve"]) -> None:
        ended = sum(len(rewards) for rewards in model.get_env().env_method("get_episode_rewards"))
        recorder.record(policy, kind, env_steps=model.num_timesteps, updates=model._n_updates, episodes=ended)

    record("curve")
    due = arm.eval_every

    def on_step(local_variables: dict[str, Any], global_variables: dict[str, Any]) -> bool:
        nonlocal due
        if due <= model.num_timesteps < arm.budget:
            due = (model.num_timesteps // arm.eval_every + 1) * arm.eval_every
            record("curve")
        return True

    model.learn(arm.budget, callback=on_step)
    record("final")
    return recorder.rows


def _run_policy(claim: Claim, arm: Arm, seed: int, command: str) -> list[Row]:
    recorder = Recorder(claim, arm, seed, command, arm.row_config())
    recorder.record(arm.agent.partition("/")[2], "final", env_steps=0, updates=0, episodes=0)
    return recorder.rows


_RUNS = {"ours": _run_ours, "peer": _run_peer, "policy": _run_policy}


def _make_ours(arm: Arm, seed: int) -> Any:
    agent_id = import_agent(arm.agent)
    tuned = preset(agent_id, arm.env) if arm.preset == "auto" else {}
    settings = {**tuned, **arm.config}
    env_kwargs = {**arm.env_kwargs, **arm.training.get("env_kwargs", {})}
    common: dict[str, Any] = {"seed": seed, "device": "cpu", "preset_name": None, **settings}
    scale = arm.training.get("reward_scale", 1.0)
    if scale == 1.0:
        return make_agent(agent_id, arm.env, env_kwargs=env_kwargs, **common)
    config = make_config(agent_class(agent_id).config_class, settings)
    env = make_vec(arm.env, config.num_envs, env_kwargs=env_kwargs)
    return make_agent(agent_id, gym.wrappers.vector.TransformReward(env, partial(mul, scale)), **common)


def _make_peer(arm: Arm, seed: int) -> Any:
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.noise import NormalActionNoise

    config = arm.row_config()
    env_kwargs = {**arm.env_kwargs, **arm.training.get("env_kwargs", {})}
    scale = arm.training.get("reward_scale", 1.0)

    def make() -> gym.Env[Any, Any]:
        env = gym.make(arm.env, **env_kwargs)
        return env if scale == 1.0 else gym.wrappers.TransformReward(env, partial(mul, scale))

    env = make_vec_env(make, n_envs=config.pop("num_envs"), seed=seed)
    if "action_noise" in config:
        shape = env.action_space.shape or ()
        config["action_noise"] = NormalActionNoise(np.zeros(shape), np.full(shape, float(config["action_noise"])))
    return _peer_class(arm.agent.partition("/")[2])(env=env, seed=seed, device="cpu", **config)


def _peer_class(name: str) -> Any:
    import stable_baselines3

    libraries = [stable_baselines3]
    try:
        import sb3_contrib
    except ImportError:
        pass
    else:
        libraries.append(sb3_contrib)
    found = {key.lower(): getattr(library, key) for library in libraries for key in library.__all__}
    if name not in found:
        raise ValueError(f"stable-baselines3 has no {name.upper()}; expected one of its algorithms or sb3-contrib's")
    return found[name]


if __name__ == "__main__":
    tyro.cli(main)
