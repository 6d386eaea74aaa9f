"""Where numbers come from: digests, versions, git, hardware, and commands without the machine in them."""

from __future__ import annotations

import enum
import json
import math
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from palaestra.agents.evaluation import provenance


@dataclass(frozen=True)
class Config:
    gamma: float = 0.99
    sizes: tuple[int, ...] = (64, 64)


class Kind(enum.Enum):
    FAST = "fast"


def test_configurations_become_json():
    value = {
        "config": Config(),
        "limit": math.inf,
        "kind": Kind.FAST,
        "rate": np.float32(0.5),
        "act": Path.home,
        3: {2, 1},
    }
    assert provenance.plain(value) == {
        "config": {"gamma": 0.99, "sizes": [64, 64]},
        "limit": "inf",
        "kind": "fast",
        "rate": 0.5,
        "act": "pathlib:Path.home",
        "3": [1, 2],
    }
    with pytest.raises(TypeError, match="no JSON form"):
        provenance.plain(object())


def test_digests_see_content_not_form():
    digest = provenance.config_hash("sac", Config())
    assert digest == provenance.config_hash("sac", {"sizes": [64, 64], "gamma": 0.99})
    assert len({digest, provenance.config_hash("td3", Config()), provenance.config_hash("sac", Config(gamma=0.9))}) == 3


def test_digests_never_change():
    # Rows on disk hold them.
    assert provenance.config_hash("sac", {"gamma": 0.99, "encoder": "auto"}) == "a4693adc8046a501"


def test_env_packages_name_what_a_foreign_envs_dynamics_come_from():
    versions = provenance.package_versions()
    assert provenance.env_packages("CartPole-v1") == {"gymnasium": versions["gymnasium"]}
    assert provenance.env_packages("palaestra/OneStoreBacklog-v0") == {}
    assert provenance.env_packages("palaestra:palaestra/OneStoreBacklog-v0") == {}


def test_env_packages_of_mujoco():
    mujoco = pytest.importorskip("mujoco")
    assert provenance.env_packages("HalfCheetah-v5")["mujoco"] == mujoco.__version__


def test_commands_lose_the_machines_folders():
    arguments = [
        "/opt/venv/bin/palaestra",
        "train",
        "--out",
        "/home/someone/runs/a b",
        "~/x",
        "--env",
        "palaestra/Kuhn-v0",
    ]
    assert provenance.command_line(arguments) == "palaestra train --out 'a b' x --env palaestra/Kuhn-v0"


def test_a_file_is_committed_or_not(tmp_path):
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")
    file = tmp_path / "claim.json"
    file.write_text("{}")
    assert provenance.committed_revision(file) is None
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    assert provenance.committed_revision(file) is None
    subprocess.run([*git, "add", "."], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-qm", "claim"], cwd=tmp_path, check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert provenance.committed_revision(file) == head.stdout.strip()
    file.write_text("{ }")
    assert provenance.committed_revision(file) is None


def test_the_revision_is_of_this_code_or_none():
    root = provenance.repository()
    revision, _ = provenance.git_state()
    if root is None:
        assert revision is None
    else:
        assert (root / "palaestra" / "protocols.py").is_file()


def test_idle_share_is_a_share_where_the_system_tells_it():
    meter = provenance.CpuMeter()
    time.sleep(0.05)
    share = meter.idle_share()
    assert share is None or 0.0 <= share <= 1.0


def test_hardware_is_json():
    described = json.loads(json.dumps(provenance.hardware()))
    assert described["cores"] >= 1
    assert provenance.threads() >= 1
