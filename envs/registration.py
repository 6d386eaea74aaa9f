"""The table of own worlds, and how a world of anyone's gets into `gym.make`.

Adding a world is its file and one row below; from a package of one's own it is one call:

    palaestra.envs.registration.register_simulator("mypkg/MyWorld-v0", "mypkg.world:MyWorld")
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import gymnasium as gym

from palaestra.protocols import Simulator


@dataclass(frozen=True)
class EnvRow:
    """One registered world.

    Attributes:
        id: `namespace/CamelCaseName-v0`.
        simulator: Where the simulator's class stands, "package.module:Class".
        kwargs: Arguments that this id gives the class; those of `gym.make` are added to them.
    """

    id: str
    simulator: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)


WORLDS = (
    EnvRow("palaestra/Acrobot-v0", "palaestra.envs.control.acrobot:Acrobot"),
    EnvRow("palaestra/BabyAI-v0", "palaestra.envs.grid.babyai:BabyAI"),
    EnvRow("palaestra/BiasBandit-v0", "palaestra.envs.control.bias_bandit:BiasBandit"),
    EnvRow("palaestra/CartPole-v0", "palaestra.envs.control.cart_pole:CartPole"),
    EnvRow("palaestra/CombinationLock-v0", "palaestra.envs.control.combination_lock:CombinationLock"),
    EnvRow("palaestra/DoorKey-v0", "palaestra.envs.grid.door_key:DoorKey"),
    EnvRow("palaestra/Empty-v0", "palaestra.envs.grid.empty:Empty"),
    EnvRow("palaestra/FourRooms-v0", "palaestra.envs.grid.four_rooms:FourRooms"),
    EnvRow("palaestra/Hydro1R-v0", "palaestra.envs.energy.hydro_1r:Hydro1R"),
    EnvRow("palaestra/HydroCascade11-v0", "palaestra.envs.energy.hydro_cascade_11:HydroCascade11"),
    EnvRow("palaestra/KeyCorridor-v0", "palaestra.envs.grid.key_corridor:KeyCorridor"),
    EnvRow("palaestra/Kuhn-v0", "palaestra.envs.games.kuhn:Kuhn"),
    EnvRow("palaestra/LQR-v0", "palaestra.envs.control.lqr:LQR"),
    EnvRow("palaestra/LavaCrossing-v0", "palaestra.envs.grid.crossing:Crossing", {"obstacle": "lava"}),
    EnvRow("palaestra/LotSizing-v0", "palaestra.envs.inventory.lot_sizing:LotSizing"),
    EnvRow("palaestra/ManyWarehouses-v0", "palaestra.envs.inventory.many_warehouses:ManyWarehouses"),
    EnvRow("palaestra/MountainCar-v0", "palaestra.envs.control.mountain_car:MountainCar"),
    EnvRow("palaestra/MountainCarContinuous-v0", "palaestra.envs.control.mountain_car:MountainCarContinuous"),
    EnvRow("palaestra/MultiGoal2D-v0", "palaestra.envs.control.multi_goal_2d:MultiGoal2D"),
    EnvRow("palaestra/MultiRoom-v0", "palaestra.envs.grid.multi_room:MultiRoom"),
    EnvRow("palaestra/Newsvendor-v0", "palaestra.envs.inventory.newsvendor:Newsvendor"),
    EnvRow("palaestra/ObstructedMaze-v0", "palaestra.envs.grid.unlock:ObstructedMaze"),
    EnvRow("palaestra/OneStoreBacklog-v0", "palaestra.envs.inventory.one_store_backlog:OneStoreBacklog"),
    EnvRow("palaestra/OneStoreLost-v0", "palaestra.envs.inventory.one_store_lost:OneStoreLost"),
    EnvRow("palaestra/OneWarehouse-v0", "palaestra.envs.inventory.one_warehouse:OneWarehouse"),
    EnvRow("palaestra/Pendulum-v0", "palaestra.envs.control.pendulum:Pendulum"),
    EnvRow("palaestra/PointMaze2D-v0", "palaestra.envs.control.point_maze_2d:PointMaze2D"),
    EnvRow("palaestra/RecFeed-v0", "palaestra.envs.recommendation.rec_feed:RecFeed"),
    EnvRow("palaestra/RecGuide-v0", "palaestra.envs.recommendation.rec_guide:RecGuide"),
    EnvRow("palaestra/RetailNetwork-v0", "palaestra.envs.inventory.retail_network:RetailNetwork"),
    EnvRow("palaestra/RetailStore-v0", "palaestra.envs.inventory.retail_store:RetailStore"),
    EnvRow("palaestra/Serial-v0", "palaestra.envs.inventory.serial:Serial"),
    EnvRow("palaestra/SimpleCrossing-v0", "palaestra.envs.grid.crossing:Crossing", {"obstacle": "wall"}),
    EnvRow("palaestra/SlipLake-v0", "palaestra.envs.grid.slip_lake:SlipLake"),
    EnvRow("palaestra/TextCorridor-v0", "palaestra.envs.text.text_corridor:TextCorridor"),
    EnvRow("palaestra/Transshipment-v0", "palaestra.envs.inventory.transshipment:Transshipment"),
    EnvRow("palaestra/Unlock-v0", "palaestra.envs.grid.unlock:Unlock"),
    EnvRow("palaestra/UnlockPickup-v0", "palaestra.envs.grid.unlock:UnlockPickup"),
)
"""The suite's own worlds, in alphabetical order."""

_registered: dict[str, EnvRow] = {}


def register() -> None:
    """Register the suite's own worlds with Gymnasium; calling it again changes nothing."""
    for row in WORLDS:
        register_simulator(row.id, row.simulator, **row.kwargs)


def register_simulator(id: str, simulator: str, **kwargs: Any) -> None:
    """Register a simulator under an id, for `gym.make` and `gym.make_vec`; the same call again changes nothing.

    Args:
        id: Environment id, `[namespace/]Name-v<version>`.
        simulator: Where the simulator's class stands, "package.module:Class"; it is imported when first made.
        **kwargs: Arguments that this id gives the class.

    Raises:
        ValueError: If `simulator` is not of the form "package.module:Class".
    """
    module, _, name = simulator.partition(":")
    if not module or not name.isidentifier():
        raise ValueError(f"register_simulator: simulator={simulator!r}; expected 'package.module:Class'")
    row = EnvRow(id, simulator, kwargs)
    if _registered.get(id) == row and id in gym.registry:
        return
    # The faces check order, actions and observations themselves, in less time than Gymnasium's wrappers take.
    gym.register(
        id=id,
        entry_point="palaestra.envs.faces:SimulatorEnv",
        vector_entry_point="palaestra.envs.faces:SimulatorVectorEnv",
        kwargs={"simulator": simulator, **kwargs},
        order_enforce=False,
        disable_env_checker=True,
    )
    _registered[id] = row


def own_env_ids() -> list[str]:
    """Return the ids of the suite's own worlds."""
    return [row.id for row in WORLDS]


def registered_rows() -> list[EnvRow]:
    """Return the rows of all simulators registered so far, the suite's own first."""
    return list(_registered.values())


def find_row(id: str) -> EnvRow:
    """Return the row of an id, of which a part "package.module:" is imported first.

    Raises:
        gymnasium.error.NameNotFound: If no simulator is registered under the id; the message names the nearest.
    """
    module, colon, name = id.rpartition(":")
    if colon:
        import_module(module)
    if name not in _registered:
        raise gym.error.NameNotFound(unknown_id_message(name, list(_registered)))
    return _registered[name]


def unknown_id_message(id: str, known: list[str]) -> str:
    """Return an error text for an unknown environment id that names the nearest known ids."""
    by_lower = {name.lower(): name for name in known}
    near = [by_lower[match] for match in difflib.get_close_matches(id.lower(), by_lower, n=3, cutoff=0.6)]
    if not near:
        # A forgotten namespace or version is nearer than any spelling distance tells.
        near = [name for name in known if id.lower() in name.lower()][:3]
    some = sorted(known) if len(known) <= 50 else f"the {len(known)} ids that `palaestra envs` lists"
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; expected one of {some}"
    return f"unknown env id {id!r}{hint}"


def load_simulator(path: str) -> type[Any]:
    """Return the class at "package.module:Class".

    Raises:
        ImportError: If the module or the class does not exist.
    """
    module, _, name = path.partition(":")
    try:
        found: type[Any] = getattr(import_module(module), name)
    except AttributeError as error:
        raise ImportError(f"simulator={path!r}: module {module} has no class {name!r}") from error
    return found


def build_simulator(path: str, **kwargs: Any) -> Simulator:
    """Return the simulator at "package.module:Class", made with the given arguments.

    Raises:
        TypeError: If the class takes no argument of that name; the message names the nearest.
    """
    simulator = load_simulator(path)
    parameters = [
        p.name for p in inspect.signature(simulator).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    unknown = [name for name in kwargs if name not in parameters]
    if unknown and len(parameters) == len(inspect.signature(simulator).parameters):
        near = difflib.get_close_matches(unknown[0], parameters, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected some of {parameters}"
        raise TypeError(f"{simulator.__name__}: unknown argument {unknown[0]}={kwargs[unknown[0]]!r}; {hint}")
    made: Simulator = simulator(**kwargs)
    return made


def make_simulator(id: str, **kwargs: Any) -> Simulator:
    """Return the simulator of a registered id, made with the id's arguments and then the given ones.

    Raises:
        gymnasium.error.NameNotFound: If the id is unknown.
        TypeError: If the world takes no argument of that name.
    """
    row = find_row(id)
    return build_simulator(row.simulator, **{**row.kwargs, **kwargs})


def summary(id: str) -> str:
    """Return one line about a world: the first of its class docstring."""
    return (inspect.getdoc(load_simulator(find_row(id).simulator)) or "").partition("\n")[0]
