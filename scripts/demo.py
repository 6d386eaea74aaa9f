"""`make demo`: train agents on worlds of four kinds, and compare them with random, heuristic and optimal play."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from palaestra.agents.agent import Agent
from palaestra.agents.evaluation.evaluate import Evaluation, evaluate
from palaestra.agents.training.logging import read_metrics
from palaestra.agents.training.run import Run, RunConfig, default_directory
from palaestra.envs.registration import make_simulator
from palaestra.scripts.options import console
from palaestra.wrappers.vectorize import make_single

EPISODES = 2_048
FOREIGN_EPISODES = 64


@dataclass(frozen=True)
class Lesson:
    """One agent on one world."""

    agent: str
    env: str
    total_timesteps: int


LESSONS = (
    Lesson("sac", "palaestra/MultiGoal2D-v0", 8_000),
    Lesson("ppo", "palaestra/OneStoreBacklog-v0", 1_000_000),
    Lesson("ppo", "palaestra/TextCorridor-v0", 60_000),
    Lesson("ppo", "palaestra/Kuhn-v0", 100_000),
    Lesson("td3", "Pendulum-v1", 8_000),
)


def main() -> int:
    """Train every lesson in a run directory of its own, print the comparison and draw the pictures."""
    torch.set_num_threads(1)
    screen, begun = console(), time.monotonic()
    table = Table("world", "agent", "steps", "trained", "random", "heuristic", "optimal", "measure", box=None)
    runs = []
    for lesson in LESSONS:
        config = RunConfig(lesson.agent, lesson.env, lesson.total_timesteps, eval_freq=lesson.total_timesteps // 4)
        run = Run.create(default_directory(config, Path("runs/demo")), config)
        screen.print(
            f"\n[bold]{lesson.agent}[/bold] on {lesson.env}, {lesson.total_timesteps:,} steps: {run.directory}"
        )
        agent = run.train(progress_bar=True)
        if run.interrupted:
            screen.print(f"interrupted; continue with: palaestra resume {run.directory}")
            return 130
        table.add_row(
            lesson.env.removeprefix("palaestra/"),
            lesson.agent,
            f"{lesson.total_timesteps:,}",
            *compare(agent, lesson.env),
        )
        runs.append(run)
    screen.print()
    screen.print(table)
    screen.print(
        f"\n{time.monotonic() - begun:.0f} s in all; higher is better; the same evaluation seeds for everyone."
    )
    screen.print(f"Pictures: {draw(runs, Path('runs/demo/pictures'))}")
    screen.print("Next: palaestra train --help, palaestra envs, palaestra agents")
    return 0


def compare(agent: Agent, env_id: str) -> list[str]:
    """Return the columns trained, random, heuristic, optimal and measure of one world."""
    keywords: dict[str, Any] = {"episodes": EPISODES if env_id.startswith("palaestra/") else FOREIGN_EPISODES}
    trained = evaluate(agent, env_id, **keywords)
    random = evaluate("random", env_id, **keywords)
    if not env_id.startswith("palaestra/"):
        return [_value(trained), _value(random), "-", "-", "return"]
    world = make_simulator(env_id)
    names = [name for name in world.reference_policies() if name not in ("random", "optimal")]
    heuristics = {name: evaluate(name, env_id, **keywords) for name in names}
    best = max(heuristics, key=lambda name: heuristics[name].value, default=None)
    oracle = world.oracle()
    optimum = "-" if oracle is None else f"{'<= ' if oracle.kind == 'bound' else ''}{oracle.value:,.3f}"
    heuristic = "-" if best is None else f"{_value(heuristics[best])} ({best})"
    measure = trained.estimand.replace("_", " ")
    return [_value(trained), _value(random), heuristic, optimum, measure]


def _value(result: Evaluation) -> str:
    return f"{result.value if result.exact_value is None else result.exact_value:,.3f}"


def draw(runs: list[Run], folder: Path) -> str:
    """Draw the learning curves and one moment of every own world; return where they are."""
    try:
        import matplotlib
    except ImportError:
        return "none, for want of matplotlib (pip install palaestra[plots])"
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(2, len(runs), figsize=(3.4 * len(runs), 6), layout="constrained", squeeze=False)
    for run, (curve, scene) in zip(runs, axes.T, strict=True):
        points = [row for row in read_metrics(run.directory) if "rollout/ep_rew_mean" in row]
        curve.plot([row["step"] for row in points], [row["rollout/ep_rew_mean"] for row in points], color="#0072B2")
        curve.set(title=f"{run.config.agent} on\n{run.config.env}", xlabel="environment steps", ylabel="episode return")
        curve.grid(alpha=0.3)
        scene.axis("off")
        picture = _scene(run.agent, run.config.env)
        if isinstance(picture, str):
            scene.text(0.0, 0.9, picture, family="monospace", fontsize=8, va="top", wrap=True)
        else:
            scene.imshow(picture)
    path = folder / "demo.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return str(path)


def _scene(agent: Agent, env_id: str) -> np.ndarray | str:
    """Return one moment of the trained agent's play: a picture, or the text of a text world."""
    # Gymnasium's classic worlds draw with pygame, which needs no screen in this mode.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    modes = make_single(env_id).metadata["render_modes"]
    env = make_single(env_id, render_mode="rgb_array" if "rgb_array" in modes else "ansi")
    observation, info = env.reset(seed=1)
    scene = env.render()
    for _ in range(6):
        action, _ = agent.predict(observation, deterministic=True, action_masks=info.get("action_mask"))
        observation, _, terminated, truncated, info = env.step(action)
        scene = env.render()
        if terminated or truncated:
            break
    env.close()
    return scene if isinstance(scene, str) else np.asarray(scene)


if __name__ == "__main__":
    raise SystemExit(main())
