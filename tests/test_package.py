"""The package as a whole: what importing it costs, what the wheel holds, and which way the rooms may point."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

import palaestra

REPOSITORY = Path(__file__).resolve().parents[1]
ROOTS = ("envs", "agents", "wrappers", "scripts")
HEAVY = (
    "array_api_compat",
    "matplotlib",
    "minigrid",
    "mujoco",
    "pygame",
    "rich",
    "safetensors",
    "scipy",
    "stable_baselines3",
    "tensorboard",
    "torch",
    "tyro",
)


def source_files() -> list[str]:
    """Files of the packages that git tracks or would track, relative to the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "palaestra", *ROOTS]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted({path for path in listed if (REPOSITORY / path).is_file()})


def installed_path(path: str) -> str:
    """Where a source file lies inside an installed package tree."""
    return path if path.startswith("palaestra/") else f"palaestra/{path}"


def module_name(path: str) -> str:
    """The full name of a source file's module."""
    return installed_path(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


PYTHON_FILES = [path for path in source_files() if path.endswith(".py")]


@cache
def syntax_tree(path: str) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"), filename=path)


def run_python(code: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter whose working directory is `folder`."""
    return subprocess.run([sys.executable, *options, "-c", code], cwd=folder, capture_output=True, text=True)


def output_of(code: str, folder: Path, *options: str) -> str:
    done = run_python(code, folder, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Importing


def test_import_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"import palaestra, sys; print([name for name in {HEAVY} if name in sys.modules])"
    assert output_of(code, tmp_path) == "[]"


def test_lazy_names_are_listed_and_unknown_ones_refused() -> None:
    assert set(palaestra.__all__) == set(dir(palaestra))
    for name in palaestra.__all__:
        assert getattr(palaestra, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'make_agnet'"):
        palaestra.make_agnet  # noqa: B018


def test_registration_is_idempotent_and_silent(tmp_path: Path) -> None:
    code = """
import gymnasium, palaestra
own = {name: spec for name, spec in gymnasium.registry.items() if name.startswith("palaestra/")}
palaestra.register()
palaestra.register()
again = {name: spec for name, spec in gymnasium.registry.items() if name.startswith("palaestra/")}
print(len(own) > 0 and own.keys() == again.keys() and all(own[name] is again[name] for name in own))
"""
    assert output_of(code, tmp_path, "-W", "error") == "True"


def test_gymnasium_makes_prefixed_ids_without_an_import(tmp_path: Path) -> None:
    code = """
import gymnasium
env = gymnasium.make("palaestra:palaestra/Kuhn-v0")
worlds = gymnasium.make_vec("palaestra:palaestra/Kuhn-v0", num_envs=2)
print(env.spec.id, worlds.num_envs)
"""
    assert output_of(code, tmp_path) == "palaestra/Kuhn-v0 2"


@pytest.mark.parametrize("root", ROOTS)
def test_a_bare_import_is_refused(root: str) -> None:
    done = run_python(f"import {root}", REPOSITORY)
    assert done.returncode != 0
    assert f"ImportError: import palaestra.{root}, not {root}" in done.stderr


@pytest.mark.parametrize("name", [module_name(path) for path in PYTHON_FILES])
def test_module_imports_and_its_examples_hold(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


# Layout


def test_every_source_folder_is_a_package() -> None:
    folders = {Path(path).parent for path in PYTHON_FILES}
    assert [str(folder) for folder in sorted(folders) if not (REPOSITORY / folder / "__init__.py").is_file()] == []


def test_type_checkers_see_the_whole_package() -> None:
    links = REPOSITORY / ".types" / "palaestra"
    wanted = {Path(path).name: path for path in source_files() if path.startswith("palaestra/")}
    wanted = {name: path for name, path in wanted.items() if name.endswith((".py", "py.typed"))}
    wanted |= {root: root for root in ROOTS}
    assert {link.name: os.readlink(link) for link in links.iterdir()} == {
        name: f"../../{path}" for name, path in wanted.items()
    }


def test_the_wheel_holds_the_source_files_and_nothing_else(tmp_path: Path) -> None:
    # A build folder left in the working tree would leak deleted files into the wheel, so a clean copy is built.
    copy = tmp_path / "copy"
    for path in [*source_files(), "pyproject.toml", "setup.py", "README.md", "LICENSE"]:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / path, copy / path)
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(copy)]
    built = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = zipfile.ZipFile(wheel).namelist()
    information = f"palaestra-{palaestra.__version__}.dist-info/"
    assert {name for name in held if not name.startswith(information)} == set(map(installed_path, source_files()))
    assert {f"{information}licenses/LICENSE", f"{information}entry_points.txt"} <= set(held)


def test_version_and_metadata() -> None:
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (REPOSITORY / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert palaestra.__version__ == metadata.version("palaestra") == released[0]
    extras = "mujoco fast gpu-physics offline sb3 plots video search ray llm test dev"
    assert set(metadata.metadata("palaestra").get_all("Provides-Extra")) == set(extras.split())
    (command,) = metadata.entry_points(group="console_scripts", name="palaestra")
    assert callable(command.load())


def test_core_dependencies_are_pinned_for_ci() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    requirements = metadata.requires("palaestra") or []
    core = {re.split(r"[^\w-]", line)[0].lower() for line in requirements if "extra ==" not in line}
    assert core <= pinned
    # A pin such as 2.13.0+cpu exists only on the machine that wrote it.
    assert [version for version in pins.values() if "+" in version] == []


# Which way things may point


def imports(path: str) -> Iterator[str]:
    """Every name that a source file imports, with the names taken from a module written out in full."""
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; expected the full name palaestra..."
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


FORBIDDEN = {
    "envs": ("palaestra.agents", "palaestra.wrappers", "palaestra.scripts"),
    "wrappers": ("palaestra.agents", "palaestra.scripts"),
    "agents": ("palaestra.envs", "palaestra.scripts"),
    "agents/losses": (
        "palaestra.agents.memory",
        "palaestra.agents.training",
        "palaestra.agents.evaluation",
        "palaestra.wrappers",
    ),
}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_rooms_point_one_way(folder: str) -> None:
    files = [path for path in PYTHON_FILES if path.startswith(f"{folder}/")]
    assert files, f"no source file in {folder}"
    crossing = {
        (path, name) for path in files for name in imports(path) for room in FORBIDDEN[folder] if is_in(name, room)
    }
    assert crossing == set()


def registers_an_agent(path: str) -> bool:
    decorators = (
        decorator.func if isinstance(decorator, ast.Call) else decorator
        for node in ast.walk(syntax_tree(path))
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
    )
    return any(isinstance(decorator, ast.Name) and decorator.id == "register_agent" for decorator in decorators)


def test_no_source_file_imports_an_algorithm() -> None:
    algorithms = [module_name(path) for path in PYTHON_FILES if registers_an_agent(path)]
    assert algorithms
    users = {
        (path, name)
        for path in PYTHON_FILES
        for name in imports(path)
        if any(is_in(name, algorithm) for algorithm in algorithms)
    }
    assert users == set()


# Random numbers

GLOBAL_RANDOM = re.compile(
    r"(np|numpy)\.random\.(?!(Generator|SeedSequence|BitGenerator|PCG64|Philox|RandomState|default_rng)\b)"
    r"|torch\.((random|cuda|default_generator)\.)?(manual_seed|manual_seed_all|seed|seed_all)\b"
    r"|random\.(?!Random\b)"
)
# Seeding is right inside a fork that puts the generator back.
ALLOWED_GLOBAL_RANDOM = {
    "agents/training/seeding.py": {"torch.manual_seed"},
    "scripts/peer_policy.py": {"torch.manual_seed"},
}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain that starts at a plain name, otherwise an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (start := dotted(node.value)):
        return f"{start}.{node.attr}"
    return ""


def global_random_uses(tree: ast.Module) -> set[str]:
    uses = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    if "random" not in plain:
        uses = {use for use in uses if not use.startswith("random.")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            uses |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {use for use in uses if GLOBAL_RANDOM.match(use)}


def test_no_source_file_touches_global_random_state() -> None:
    found = {path: global_random_uses(syntax_tree(path)) for path in PYTHON_FILES}
    assert {path: uses for path, uses in found.items() if uses} == ALLOWED_GLOBAL_RANDOM


@pytest.mark.parametrize(
    ("code", "uses"),
    [
        ("import numpy as np\nnp.random.seed(0)", {"np.random.seed"}),
        ("import numpy as np\nnp.random.default_rng(0).normal()", set()),
        ("import numpy as np\nnp.random.RandomState(0).normal()", set()),
        ("from numpy.random import rand", {"numpy.random.rand"}),
        ("import torch\ntorch.cuda.manual_seed(0)", {"torch.cuda.manual_seed"}),
        ("import torch\ntorch.Generator().manual_seed(0)", set()),
        ("import random\nrandom.seed(0)", {"random.seed"}),
        ("def draw(random):\n    return random.normal()", set()),
    ],
)
def test_global_random_uses_are_found(code: str, uses: set[str]) -> None:
    assert global_random_uses(ast.parse(code)) == uses
