"""Pictures of grid worlds: one tile a cell, lighter where the agent sees it, and a text of two characters a cell."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from palaestra.envs import rendering
from palaestra.envs.grid.cells import (
    AGENT,
    AGENT_TYPE,
    BALL_TYPE,
    BOX_TYPE,
    COLORS,
    CONTENT,
    DOOR_TYPE,
    EMPTY,
    EMPTY_TYPE,
    ENCODING,
    GOAL_TYPE,
    KEY_TYPE,
    LAVA_TYPE,
    WALL_TYPE,
)
from palaestra.envs.grid.view import VIEW, partial_view, window_table

TILE = 24
_RGB: tuple[rendering.Color, ...] = (
    (211, 47, 47),
    (56, 142, 60),
    (48, 79, 254),
    (123, 31, 162),
    (253, 216, 53),
    (117, 117, 117),
)
_FLOOR, _GRID, _STONE, _LAVA, _LIGHT = (33, 33, 33), (66, 66, 66), (141, 141, 141), (255, 87, 34), 60
_LETTERS = {WALL_TYPE: "W", KEY_TYPE: "K", BALL_TYPE: "A", BOX_TYPE: "B", GOAL_TYPE: "G", LAVA_TYPE: "V"}
_THINGS = {KEY_TYPE: "key", BALL_TYPE: "ball", BOX_TYPE: "box"}
_ARROWS = (">>", "vv", "<<", "^^")


def picture(cells: np.ndarray, place: int, direction: int, see_through: bool) -> np.ndarray:
    """Return one grid drawn, uint8 `[24 * height, 24 * width, 3]`; cells in view are lighter.

    Args:
        cells: Codes `[width, height]`.
        place: Flat index of the agent's cell.
        direction: Its direction.
        see_through: Whether nothing blocks the view.
    """
    width, height = cells.shape
    pose = np.array([place]), np.array([direction])
    seen = partial_view(cells[None], *pose, np.array([EMPTY]), see_through)[0].reshape(VIEW * VIEW, 3)[:, 0] > 0
    lit = np.zeros(width * height, bool)
    # Cell 0 stands for all that lies beyond the grid.
    lit[window_table(width, height)[4 * place + direction][seen]] = True
    lit[0] = False
    codes = cells.reshape(-1).astype(int)
    tiles = [_tile(code & CONTENT, bool(light)) for code, light in zip(codes, lit, strict=True)]
    tiles[place] = _tile(AGENT + direction, True, int(codes[place] & CONTENT))
    return (
        np.stack(tiles)
        .reshape(width, height, TILE, TILE, 3)
        .transpose(1, 2, 0, 3, 4)
        .reshape(height * TILE, width * TILE, 3)
    )


@lru_cache(maxsize=1024)
def _tile(code: int, lit: bool, under: int = EMPTY) -> np.ndarray:
    canvas = rendering.Canvas(TILE, TILE, _FLOOR)
    canvas.rectangle(0, 0, TILE, 1, _GRID)
    canvas.rectangle(0, 0, 1, TILE, _GRID)
    kind, color, state = (int(part) for part in ENCODING[code])
    if kind == AGENT_TYPE:
        canvas.pixels[:] = _tile(under, False)
        _draw_agent(canvas, state)
    elif kind == DOOR_TYPE:
        _draw_door(canvas, _RGB[color], state)
    elif kind == WALL_TYPE:
        canvas.rectangle(0, 0, TILE, TILE, _STONE)
    elif kind == GOAL_TYPE:
        canvas.rectangle(1, 1, TILE, TILE, _RGB[color])
    elif kind == LAVA_TYPE:
        canvas.rectangle(1, 1, TILE, TILE, _LAVA)
    elif kind == BALL_TYPE:
        canvas.disc(TILE / 2, TILE / 2, 7, _RGB[color])
    elif kind == BOX_TYPE:
        canvas.rectangle(4, 5, 21, 20, _RGB[color])
        canvas.rectangle(6, 7, 19, 18, _FLOOR)
        canvas.rectangle(6, 11, 19, 13, _RGB[color])
    elif kind == KEY_TYPE:
        canvas.disc(13, 7, 4, _RGB[color])
        canvas.disc(13, 7, 1.5, _FLOOR)
        canvas.rectangle(12, 10, 15, 21, _RGB[color])
        canvas.rectangle(9, 14, 12, 16, _RGB[color])
        canvas.rectangle(9, 18, 12, 20, _RGB[color])
    pixels = canvas.pixels
    if lit:
        pixels = (pixels + (255 - pixels.astype(int)) * _LIGHT // 255).astype(np.uint8)
    pixels.setflags(write=False)
    return pixels


def _draw_door(canvas: rendering.Canvas, color: rendering.Color, state: int) -> None:
    if state == 0:
        canvas.rectangle(TILE - 4, 0, TILE, TILE, color)
        return
    canvas.rectangle(0, 0, TILE, TILE, color)
    if state == 1:
        canvas.rectangle(2, 2, TILE - 2, TILE - 2, _FLOOR)
        canvas.rectangle(4, 4, TILE - 4, TILE - 4, color)
        canvas.rectangle(6, 6, TILE - 6, TILE - 6, _FLOOR)
        canvas.disc(TILE - 8, TILE / 2, 2, color)
    else:
        canvas.rectangle(2, 2, TILE - 2, TILE - 2, tuple(part // 2 for part in color))  # type: ignore[arg-type]
        canvas.rectangle(12, 11, 18, 14, color)


def _draw_agent(canvas: rendering.Canvas, direction: int) -> None:
    """A triangle that points ahead."""
    y, x = np.mgrid[:TILE, :TILE] - (TILE - 1) / 2
    ahead, aside = ((x, y), (y, x), (-x, y), (-y, x))[direction]
    inside = (ahead > -8) & (ahead < 9) & (np.abs(aside) < (9 - ahead) / 2.2)
    canvas.pixels[inside] = rendering.ORANGE


def ansi_picture(cells: np.ndarray, place: int, direction: int, carried: int, said: str) -> str:
    """Return one grid as text: two characters a cell, the object's letter and its colour's; then hand and mission.

    Letters: W wall, D closed door, L locked door, _ open door, K key, A ball, B box, G goal, V lava; the agent is
    `>>`, `vv`, `<<` or `^^`.
    """
    lines = []
    for y in range(cells.shape[1]):
        line = [_letters(int(cells[x, y])) for x in range(cells.shape[0])]
        if place % cells.shape[1] == y:
            line[place // cells.shape[1]] = _ARROWS[direction]
        lines.append("".join(line).rstrip())
    kind, color, _ = (int(part) for part in ENCODING[carried])
    hand = "nothing" if kind <= EMPTY_TYPE else f"a {COLORS[color]} {_THINGS[kind]}"
    return "\n".join([*lines, f"carries {hand}", said])


def _letters(code: int) -> str:
    kind, color, state = (int(part) for part in ENCODING[code])
    if kind <= EMPTY_TYPE:
        return "  "
    if kind == DOOR_TYPE:
        return "_DL"[state] + COLORS[color][0].upper()
    return _LETTERS[kind] + COLORS[color][0].upper()
