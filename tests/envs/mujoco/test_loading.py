"""What MuJoCo warns of while models are compiled reaches Python, and neither the terminal nor a file."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium as gym
import mujoco
import pytest

from palaestra.envs.mujoco.loading import python_warnings
from palaestra.wrappers.vectorize import make_single, make_vec

WARNS = (
    """<mujoco><compiler settotalmass="1"/><worldbody><body><freejoint/><geom size="1"/></body></worldbody></mujoco>"""
)


def test_deprecations_become_warnings_of_their_category() -> None:
    with pytest.warns(DeprecationWarning, match="MuJoCo: .*settotalmass"), python_warnings():
        mujoco.MjModel.from_xml_string(WARNS)


def test_the_handler_before_is_put_back_also_after_an_error() -> None:
    heard: list[str] = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        with warnings.catch_warnings(), python_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match="XML"):
                mujoco.MjModel.from_xml_string("<nothing/>")
        mujoco.MjModel.from_xml_string(WARNS)
    finally:
        mujoco.set_mju_user_warning(None)
    assert len(heard) == 1


def test_envs_are_made_without_a_word_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    makers = (
        lambda: make_single("HalfCheetah-v5"),
        lambda: make_vec("HalfCheetah-v5", 2, backend="sync"),
        lambda: make_vec("HalfCheetah-v5", 2, backend="mujoco-pool"),
    )
    for make in makers:
        with pytest.warns(DeprecationWarning, match="settotalmass"):
            make().close()
    told = capfd.readouterr()
    assert told.out + told.err == ""
    assert not list(tmp_path.iterdir())
    # Gymnasium's own way of making it would have said something, so that the test can fail.
    gym.make("HalfCheetah-v5").close()
    told = capfd.readouterr()
    assert "settotalmass" in told.out + told.err
