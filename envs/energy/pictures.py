"""Pictures of a hydrothermal system: one moment, and a whole plan with its water, power, prices and costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from palaestra.envs import rendering
from palaestra.envs.energy.system import HydroSystem
from palaestra.envs.noise import draw_tape
from palaestra.envs.simulator import Simulator
from palaestra.protocols import Actor

GREY: rendering.Color = (150, 150, 150)
_LABEL, _STAGE, _PANEL, _POWER = 130, 14, 64, 120
_WIDTH, _ROW, _HALF = 560, 30, 20


def moment_text(
    system: HydroSystem,
    storage: NDArray[np.float64],
    inflow: NDArray[np.float64],
    flows: NDArray[np.float64],
    dispatch: NDArray[np.float64],
) -> str:
    """Return one line for each plant and one for the power of the last stage.

    Args:
        system: The system.
        storage: Volumes, `[plants]`.
        inflow: Natural inflows of the stage to come, `[plants]`.
        flows: What was turbined in the last stage, then what was spilled, `[2 * plants]`.
        dispatch: Its hydro power, thermal power, deficit and cost, `[4]`.
    """
    plants, width = system.plants, max(len(name) for name in system.names)
    lines = [
        f"{name:<{width}} | storage {storage[i]:.1f} of {system.capacity[i]:.1f} | inflow {inflow[i]:.1f} | "
        f"last turbined {flows[i]:.1f} | last spilled {flows[plants + i]:.1f}"
        for i, name in enumerate(system.names)
    ]
    hydro, thermal, deficit, cost = dispatch
    lines.append(f"last hydro {hydro:.1f} | thermal {thermal:.1f} | deficit {deficit:.1f} | cost {cost:.1f}")
    return "\n".join(lines)


def draw_moment(
    system: HydroSystem,
    storage: NDArray[np.float64],
    inflow: NDArray[np.float64],
    flows: NDArray[np.float64],
    dispatch: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Return a row for each plant and one for power; arguments as `moment_text`.

    A plant's row: its storage (blue, in a frame of its capacity), the inflow to come (green), and what was turbined
    (ink) and spilled (red) in the last stage, all three on the scale of what its turbines take. The last row: hydro
    (blue), thermal (grey) and deficit (red) against the load.
    """
    plants = system.plants
    canvas = rendering.Canvas(_WIDTH, 24 + _ROW * (plants + 1) + 16)
    for left, label in ((70, "STORAGE"), (290, "INFLOW"), (385, "TURBINED"), (480, "SPILLED")):
        canvas.text(left, 8, label, scale=1)
    for plant, name in enumerate(system.names):
        top = 24 + _ROW * plant
        canvas.text(6, top + 6, name[:7], scale=2)
        full = system.capacity[plant]
        canvas.rectangle(70, top, 270, top + _HALF, rendering.PALE)
        canvas.rectangle(70, top, 70 + 200 * storage[plant] / max(full, 1e-9), top + _HALF, rendering.BLUE)
        canvas.text(74, top + 7, f"{storage[plant]:.1f} / {full:.1f}", scale=1)
        amounts = (
            (290, inflow[plant], rendering.GREEN),
            (385, flows[plant], rendering.INK),
            (480, flows[plants + plant], rendering.RED),
        )
        for left, flow, color in amounts:
            long = 50.0 * min(float(flow) / float(system.turbine_capacity[plant]), 1.0)
            canvas.rectangle(left, top, left + long, top + 12, color)
            canvas.text(left, top + 15, f"{flow:.1f}", scale=1)
    top = 24 + _ROW * plants + 6
    canvas.text(6, top + 4, "POWER", scale=2)
    scale = 340.0 / max(system.load, float(dispatch[0]), 1e-9)
    begin = 70.0
    for power, color in zip(dispatch[:3], (rendering.BLUE, GREY, rendering.RED), strict=True):
        canvas.rectangle(begin, top, begin + scale * power, top + _HALF, color)
        begin += scale * power
    canvas.rectangle(70 + scale * system.load - 1, top - 3, 70 + scale * system.load + 1, top + 23, rendering.INK)
    canvas.text(430, top + 4, f"COST {dispatch[3]:.0f}", scale=2)
    return canvas.pixels


def plan(world: Simulator[Any], actor: Actor, seed: int = 0) -> NDArray[np.uint8]:
    """Return one episode of a policy as a picture.

    A panel for each reservoir that holds water: storage at the end of each stage (blue, in a frame of its capacity),
    inflow (green ticks), turbined (ink ticks) and spilled flow (red ticks). Then power: hydro (blue), thermal (grey)
    and deficit (red) under a line at the load, and the price of one more unit of it (orange ticks); then the cost of
    each stage and its sum.

    Args:
        world: A hydrothermal world.
        actor: The policy.
        seed: Seed of the row.

    Raises:
        TypeError: If the world is of another kind.
    """
    system = getattr(world, "system", None)
    if not isinstance(system, HydroSystem):
        raise TypeError(f"plan: {type(world).__name__} has no reservoirs; expected a hydrothermal world")
    tape = draw_tape([seed], world.horizon)
    state = world.initial(tape.at(0))
    infos: list[dict[str, NDArray[np.float64]]] = []
    for stage in range(1, world.horizon + 1):
        key = tape.at(stage)
        transition = world.step(state, actor(state, world.observe(state), key), key)
        infos.append({name: np.asarray(array[0], np.float64) for name, array in transition.info.items()})
        state = transition.state
    series = {name: np.array([info[name] for info in infos]) for name in infos[0]}
    shown = np.flatnonzero(system.capacity > 0.0)
    height = _PANEL * len(shown) + 2 * _POWER + 8
    canvas = rendering.Canvas(_LABEL + _STAGE * world.horizon + 8, height)
    for row, plant in enumerate(shown):
        _draw_reservoir(canvas, system, series, int(plant), _PANEL * (row + 1))
    _draw_power(canvas, system, series, _PANEL * len(shown) + _POWER)
    _draw_cost(canvas, series["cost"], _PANEL * len(shown) + 2 * _POWER)
    return canvas.pixels


def _draw_reservoir(
    canvas: rendering.Canvas, system: HydroSystem, series: dict[str, NDArray[np.float64]], plant: int, ground: int
) -> None:
    high, full = _PANEL - 14, float(system.capacity[plant])
    flows = {name: series[name][:, plant] for name in ("inflow", "turbined", "spilled")}
    per_flow = high / max(1e-9, *(float(flow.max()) for flow in flows.values()))
    canvas.text(6, ground - high + 4, system.names[plant][:14], scale=2)
    canvas.text(6, ground - high + 20, f"FULL {full:.1f}", scale=1)
    canvas.text(6, ground - high + 30, f"FLOW TO {high / per_flow:.1f}", scale=1)
    for stage, volume in enumerate(series["storage"][:, plant]):
        left = _LABEL + _STAGE * stage
        right = left + _STAGE - 1
        canvas.rectangle(left, ground - high, right, ground, rendering.PALE)
        canvas.rectangle(left, ground - high * volume / full, right, ground, rendering.BLUE)
        colors = {"inflow": rendering.GREEN, "turbined": rendering.INK, "spilled": rendering.RED}
        for name, flow in flows.items():
            if name != "spilled" or flow[stage] > 0.0:
                _tick(canvas, left, ground - per_flow * flow[stage], colors[name])


def _draw_power(
    canvas: rendering.Canvas, system: HydroSystem, series: dict[str, NDArray[np.float64]], ground: int
) -> None:
    high = _POWER - 20
    scale = high / max(1e-9, system.load, float(series["hydro"].max()))
    per_price = high / max(system.deficit_price, 1e-9)
    canvas.text(6, ground - high, f"LOAD {system.load:.0f}", scale=2)
    canvas.text(6, ground - high + 16, f"PRICE TO {system.deficit_price:.0f}", scale=1)
    canvas.text(6, ground - high + 26, f"THERMAL {series['thermal'].mean():.1f}", scale=1)
    canvas.text(6, ground - high + 36, f"DEFICIT {series['deficit'].mean():.1f}", scale=1)
    line = ground - scale * system.load
    canvas.rectangle(_LABEL - 4, line - 1, canvas.pixels.shape[1] - 6, line + 1, rendering.INK)
    for stage in range(len(series["hydro"])):
        left, below = _LABEL + _STAGE * stage, 0.0
        for name, color in (("hydro", rendering.BLUE), ("thermal", GREY), ("deficit", rendering.RED)):
            power = float(series[name][stage])
            top = ground - scale * (below + power)
            canvas.rectangle(left, top + 1, left + _STAGE - 1, ground - scale * below, color)
            below += power
        _tick(canvas, left, ground - per_price * series["price"][stage], rendering.ORANGE)


def _draw_cost(canvas: rendering.Canvas, cost: NDArray[np.float64], ground: int) -> None:
    high = _POWER - 20
    scale = high / max(1e-9, float(cost.max()))
    canvas.text(6, ground - high, "COST", scale=2)
    canvas.text(6, ground - high + 16, f"{cost.sum():.0f}", scale=2)
    for stage, paid in enumerate(cost):
        left = _LABEL + _STAGE * stage
        canvas.rectangle(left, ground - scale * paid, left + _STAGE - 1, ground, rendering.GREEN)
    canvas.rectangle(_LABEL - 4, ground, canvas.pixels.shape[1] - 6, ground + 1, rendering.INK)


def _tick(canvas: rendering.Canvas, left: float, y: float, color: rendering.Color) -> None:
    canvas.rectangle(left, y - 1, left + _STAGE - 1, y + 1, color)
