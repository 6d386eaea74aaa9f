"""The examples of the documents are complete: they are written to disk and run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- (file: \S+|run|shell) -->\n```\w+\n(.*?)```", re.DOTALL)


def run_blocks(document: str, folder: Path) -> list[str]:
    """Write the files of a document to a folder, run its code there block by block, and return the kinds of blocks."""
    blocks = BLOCK.findall((ROOT / document).read_text())
    for kind, text in blocks:
        if kind.startswith("file: "):
            path = folder / kind.removeprefix("file: ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for kind, text in blocks:
        if kind.startswith("file"):
            continue
        command = [sys.executable, "-c", text] if kind == "run" else ["bash", "-ec", text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return [kind.partition(":")[0] for kind, _ in blocks]


def test_extending_works_as_written(tmp_path: Path) -> None:
    kinds = run_blocks("docs/extending.md", tmp_path)
    assert kinds == ["file", "file", "run", "shell", "file", "run", "shell", "run", "run"]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_your_own_network_works_as_written(tmp_path: Path) -> None:
    kinds = run_blocks("docs/your_own_network.md", tmp_path)
    assert kinds == ["file", "run", "shell", "run", "run", "run", "run"]
    assert (tmp_path / "coffee.png").stat().st_size > 1_000


def test_commands_of_the_readme_exist() -> None:
    from palaestra.cli import COMMANDS

    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"palaestra ([a-z]+) ", text)) - {"was"}
    assert used <= COMMANDS.keys(), used - COMMANDS.keys()
    targets = set(re.findall(r"make ([a-z-]+)", text))
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
