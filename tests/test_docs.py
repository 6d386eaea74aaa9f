"""The examples of the documents are complete: they are written to disk and run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- (file: \S+|run|shell) -->\n```\w+\n(.*?)```", re.DOTALL)


def test_extending_works_as_written(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs/extending.md").read_text())
    assert [kind.partition(":")[0] for kind, _ in blocks] == [
        "file",
        "file",
        "run",
        "shell",
        "file",
        "run",
        "shell",
        "run",
        "run",
    ]
    for kind, text in blocks:
        if kind.startswith("file: "):
            path = tmp_path / kind.removeprefix("file: ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for kind, text in blocks:
        if kind.startswith("file"):
            continue
        command = [sys.executable, "-c", text] if kind == "run" else ["bash", "-ec", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_commands_of_the_readme_exist() -> None:
    from palaestra.cli import COMMANDS

    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"palaestra ([a-z]+) ", text)) - {"was"}
    assert used <= COMMANDS.keys(), used - COMMANDS.keys()
    targets = set(re.findall(r"make ([a-z-]+)", text))
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
