"""`palaestra play`: watch a policy act, or record a video of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import tyro

from palaestra.agents.evaluation.playing import play_episodes, record_video
from palaestra.scripts.evaluate import load_policy
from palaestra.wrappers.vectorize import make_single


@dataclass(frozen=True)
class PlayOptions:
    """Let a trained agent or a reference policy act in one env, and print, show or record what happens."""

    policy: Annotated[str, tyro.conf.Positional]
    """A run directory, a directory written by save, or (with --env) the name of a reference policy such as random."""
    env: str | None = None
    """Env id; by default the one the agent was trained on."""
    env_kwargs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Arguments of the env; by default those of the training."""
    episodes: int = 1
    """Episodes to play."""
    seed: int = 0
    """Seed of the env."""
    render: str | None = None
    """Render mode: ansi prints, human opens a window; by default ansi where the env offers it."""
    video: Path | None = None
    """Folder to write an mp4 of every episode to (needs the extra `video`)."""
    delay: float = 0.0
    """Seconds between two printed steps."""


def main(arguments: list[str]) -> int:
    """Play and print the returns."""
    options = tyro.cli(PlayOptions, prog="palaestra play", args=arguments)
    try:
        policy, env_id, env_kwargs = load_policy(options.policy, options.env, options.env_kwargs)
        if options.video is not None:
            returns = record_video(policy, env_id, env_kwargs, options.video, "play", options.episodes, options.seed)
        else:
            mode = options.render or _text_mode(env_id, env_kwargs)
            returns = play(policy, env_id, env_kwargs, mode, options.episodes, options.seed, options.delay)
    except (ValueError, TypeError, OSError, KeyError, gym.error.Error) as error:
        print(f"palaestra play: {error}", file=sys.stderr)
        return 2
    print(f"returns: {', '.join(f'{value:,.4g}' for value in returns)}")
    return 0


def play(
    policy: Any,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    render_mode: str | None,
    episodes: int,
    seed: int,
    delay: float,
) -> list[float]:
    """Return the returns of some episodes, printing every frame of text envs."""
    env = make_single(env_id, env_kwargs=env_kwargs, render_mode=render_mode)

    def show() -> None:
        if render_mode == "ansi":
            print(env.render())
            time.sleep(delay)

    try:
        return play_episodes(policy, env, episodes, seed, show)
    finally:
        env.close()


def _text_mode(env_id: str, env_kwargs: Mapping[str, Any]) -> str | None:
    env = make_single(env_id, env_kwargs=env_kwargs)
    try:
        return "ansi" if "ansi" in (env.metadata.get("render_modes") or ()) else None
    finally:
        env.close()
