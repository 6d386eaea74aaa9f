"""TextCorridor: a chain or tree of rooms, read and walked in words, with every value by dynamic programming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np

from palaestra.envs.arrays import namespace_of, table_like
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.simulator import RandomActor, Simulator, map_arrays, take_rows
from palaestra.envs.text.corridor_exact import CorridorExact, CorridorState
from palaestra.envs.text.corridor_map import door_names, draw_maps
from palaestra.envs.text.corridor_tables import LONGEST_ACTION_TOKENS, CorridorTables, build_tables
from palaestra.envs.text.grammar import (
    LONGEST_ACTION_TEXT,
    Grammar,
    SpeakingActor,
    SpellingActor,
    Trie,
    read_action_tokens,
)
from palaestra.envs.text.tabular import DONE, NOTHING, REFUSED, ExactValues, TurnLimitedModel
from palaestra.envs.text.vocabulary import PAD, VOCABULARY_SIZE, decode
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

LONGEST_OBSERVATION_TEXT = 2048
PRINTABLE = "".join(map(chr, range(32, 127))) + "\n"
"""Characters of texts; the default of `gym.spaces.Text` lacks the space."""

_CHOICES = {
    "shape": ("chain", "tree"),
    "reward_mode": ("sparse", "per_turn", "delayed", "shaped"),
    "obs_mode": ("tokens", "text", "both"),
    "action_mode": ("index", "slots", "text", "tokens"),
    "task_split": ("train", "validation", "test"),
}


class TextCorridor(Simulator[CorridorState]):
    """Find the goal room of a building by naming doors; the unit-test world of multi-turn text.

    A task is a building: `rooms` rooms in a chain or a binary tree, `loops` more doors between rooms that have none,
    a number on every room, a name on every door. The goal is drawn among the dead ends; the start is the room farthest
    from it. Every room's doors bear some of six invented names, dealt anew in each room, so the way must be learned
    room by room. By default one task, a chain of 8 rooms with slips of .25: seven moves, all in the right direction,
    with 16 turns to make them. There the optimum is .9839 of success, an optimal policy that moves at random one turn
    in ten reaches .9547, and random walks .1536.

    **Observation** (`obs_mode`), from fragments of tokens, five lines with numbers spelled by digits of fixed width:

        task: reach room 6
        turn: 03 of 16
        last: moved
        see: room 2
        can: move vobi | move ze

    "tokens": `Dict(tokens: int32 [L], length: Discrete(L + 1))`, padded with 0; "text": the string, of at most 2,048
    characters; "both": a Dict of all three. `turn` counts the turns taken. `last` is "nothing" at the start, "moved",
    or "invalid: <reason>". Slips do not show.

    **Action** (`action_mode`): one of six `move <name>`; admissible where the room has a door of that name. "index":
    `Discrete(6)`, place in the catalogue `grammar.texts`. "slots": `Discrete(most doors)`, place in the `can:` line.
    "text": a string of at most 4,096 characters, read by `grammar.parse`: the last line that begins with `act:` counts,
    what stands before is a thought. "tokens": int32 `[32]`, the tokens of an action's text (after the last `act:` if
    there is one) up to the first `<end>` or `<pad>`. All modes are one transition: an action that is inadmissible or
    not understood leaves the room as it is, costs the turn and `invalid_penalty`, and shows in the `last:` line.
    `action_mask` is over the catalogue (over the slots in mode "slots").

    **Dynamics**: with probability `slip` an admissible action takes a door of the room drawn at random instead.

    **Reward** (`reward_mode`): "sparse": 1 at the goal. "per_turn": -1 a turn. "delayed": the same sum, paid at the
    end. "shaped": sparse plus the growth of a potential (minus the distance to the goal, over the longest), which is 0
    at the goal and at the time limit, so that a return is that of "sparse" plus 1 whatever the policy.

    **End**: terminated at the goal; truncated after `2 * rooms` turns.

    **Info**: `success`, `score` (1 at the goal, else 1 minus distance over longest distance), `task_uid`, `state_key`
    (hash of task and room), `anchor` (hash of what was seen, without the turn line), `turn`, `action_mask`,
    `is_action_valid`: all functions of the state.

    **Tasks**: task q of a split depends on (q, split) and the arguments of its building alone. An episode draws one of
    `tasks` tasks ("task"), and each step its slip ("slip"); `reset(options={"task_seed": q, "member": m})` begins task
    q with the noise of (q, m).

    **Oracle**: the mean episode return of the optimal policy, by dynamic programming over (turn, task, room): "optimum"
    where all rooms look different, else "bound", for then no policy of the observation may reach it.

    **Version history**: v0, first release.

    Args:
        rooms: 2 to 64.
        shape: "chain", or "tree": room i > 0 hangs on room (i - 1) // 2.
        loops: Doors beyond the shape, at least 0.
        aliases: Rooms that share a number and door names: 0, or 2 and more.
        name_tokens: Tokens of a door name, 1 to 16, or several that the names take in turn.
        slip: Probability of a random door, 0 to 1.
        reward_mode: "sparse", "per_turn", "delayed" or "shaped".
        invalid_penalty: Taken off in the turn of an invalid action, whatever the mode; at least 0, in units of reward.
        obs_mode: "tokens", "text" or "both".
        action_mode: "index", "slots", "text" or "tokens".
        tasks: Number of tasks that episodes draw from, at least 1.
        task_split: "train", "validation" or "test": three disjoint families of tasks.

    Raises:
        ValueError: If an argument is outside its range.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("ansi",)
    render_fps: ClassVar[int] = 2
    draws: ClassVar[tuple[str, ...]] = ("task", "slip", "policy")

    def __init__(
        self,
        rooms: int = 8,
        shape: Literal["chain", "tree"] = "chain",
        loops: int = 0,
        aliases: int = 0,
        name_tokens: int | Sequence[int] = 1,
        slip: float = 0.25,
        reward_mode: Literal["sparse", "per_turn", "delayed", "shaped"] = "sparse",
        invalid_penalty: float = 0.0,
        obs_mode: Literal["tokens", "text", "both"] = "tokens",
        action_mode: Literal["index", "slots", "text", "tokens"] = "index",
        tasks: int = 1,
        task_split: Literal["train", "validation", "test"] = "train",
    ) -> None:
        lengths = (name_tokens,) if isinstance(name_tokens, int) else tuple(name_tokens)
        for name, count, least in (
            ("rooms", rooms, 2),
            ("loops", loops, 0),
            ("aliases", aliases, 0),
            ("tasks", tasks, 1),
        ):
            check_count("TextCorridor", name, count, least)
        _require("rooms", rooms, rooms <= 64, "an integer from 2 to 64")
        _require("aliases", aliases, aliases != 1, "0, or an integer of at least 2")
        _require(
            "name_tokens", name_tokens, bool(lengths) and all(1 <= n <= 16 for n in lengths), "integers from 1 to 16"
        )
        _require("slip", slip, check_amount("TextCorridor", "slip", slip) <= 1.0, "a number from 0 to 1")
        check_amount("TextCorridor", "invalid_penalty", invalid_penalty)
        chosen = {
            "shape": shape,
            "reward_mode": reward_mode,
            "obs_mode": obs_mode,
            "action_mode": action_mode,
            "task_split": task_split,
        }
        for name, value in chosen.items():
            _require(name, value, value in _CHOICES[name], f"one of {_CHOICES[name]}")
        self.rooms, self.tasks, self.horizon, self.slip = rooms, tasks, 2 * rooms, slip
        self.reward_mode, self.invalid_penalty = reward_mode, invalid_penalty
        self.obs_mode, self.action_mode = obs_mode, action_mode
        self.map = draw_maps(shape, rooms, loops, aliases, tasks, task_split)
        self.grammar = Grammar([f"move {name}" for name in door_names(lengths)])
        self.targets = self.map.doors if action_mode == "slots" else self.map.named_door
        task_seeds = [(rooms, shape, loops, aliases, lengths, task_split, task) for task in range(tasks)]
        self._tables = build_tables(self.map, self.grammar, self.horizon, self.targets, task_seeds)
        self.num_actions = self.targets.shape[2]
        first_clock_column = int(np.flatnonzero(self._tables.scene[0] == PAD)[0])
        self._clock_columns = slice(first_clock_column, first_clock_column + self._tables.clock.shape[1])
        self._copies: dict[str, CorridorTables] = {}
        self.observation_space = self._observation_space()
        self.action_space = self._action_space()

    def _observation_space(self) -> gym.Space[Any]:
        longest = self._tables.scene.shape[1]
        parts: dict[str, gym.Space[Any]] = {
            "tokens": gym.spaces.Box(0, VOCABULARY_SIZE - 1, (longest,), np.int32),
            "length": gym.spaces.Discrete(longest + 1),
            "text": gym.spaces.Text(LONGEST_OBSERVATION_TEXT, min_length=0, charset=PRINTABLE),
        }
        if self.obs_mode == "text":
            return parts["text"]
        return gym.spaces.Dict(parts if self.obs_mode == "both" else {n: parts[n] for n in ("tokens", "length")})

    def _action_space(self) -> gym.Space[Any]:
        if self.action_mode == "text":
            return gym.spaces.Text(LONGEST_ACTION_TEXT, min_length=0, charset=PRINTABLE)
        if self.action_mode == "tokens":
            return gym.spaces.Box(0, VOCABULARY_SIZE - 1, (LONGEST_ACTION_TOKENS,), np.int32)
        return gym.spaces.Discrete(self.num_actions)

    @cached_property
    def trie(self) -> Trie:
        """The tokens of the catalogue's texts as a tree, for masked decoding."""
        return Trie(self.grammar.texts)

    def initial(self, key: Key) -> CorridorState:
        """Return the start of an episode of a task drawn at random for every row."""
        return self.initial_of_task(key.integers("task", self.tasks), key)

    def initial_of_task(self, task: Array, key: Key) -> CorridorState:
        """Return the start of an episode of the given task `[batch]`, 0, ..., `tasks` - 1, of every row."""
        return CorridorState(self._on(task).start[task], 0 * task, 0 * task)

    def step(self, state: CorridorState, action: Array, key: Key) -> Transition[CorridorState]:
        """Return the next turn of every row.

        Args:
            state: The present state.
            action: int64 `[batch]`, below 0 in mode "text" for a text that is no action; `[batch, 32]` in mode
                "tokens".
            key: Noise of the turn.
        """
        xp, tables = namespace_of(state.place), self._on(state.place)
        choice = read_action_tokens(action, tables.actions) if self.action_mode == "tokens" else action
        outcome = state.place * (self.num_actions + 2) + (choice + 2)
        place, last = tables.next_place[outcome], tables.next_last[outcome]
        valid = last == DONE
        if self.slip > 0.0:
            # Below `slip` the draw is uniform once more, and so picks the door too.
            draw, columns = key.uniform("slip"), self.map.doors.shape[2] + 1
            slipped = valid & (draw < self.slip)
            door = slipped * xp.astype(draw * (tables.degree[state.place] / self.slip), xp.int64)
            place = xp.where(slipped, tables.doors[state.place * columns + door], place)
        turn, success = state.turn + 1, tables.success[place]
        reward = self._reward(success, turn, tables.potential[state.place], tables.potential[place])
        if self.invalid_penalty > 0.0:
            reward = reward - self.invalid_penalty * xp.astype(~valid, xp.float64)
        return Transition(CorridorState(place, last, turn), reward, success)

    def _reward(self, reached: Array, turns: Array, before: Array, after: Array) -> Array:
        """Reward of a turn without penalty: `turns` taken with it, potentials `before` and `after` it."""
        xp = namespace_of(reached)
        success = xp.astype(reached, xp.float64)
        if self.reward_mode == "sparse":
            return success
        if self.reward_mode == "per_turn":
            return 0.0 * success - 1.0
        over = reached | (turns >= self.horizon)
        if self.reward_mode == "delayed":
            return -turns * xp.astype(over, xp.float64)
        return success + xp.where(over, 0.0 * after, after) - before

    def observe(self, state: CorridorState) -> dict[str, Array]:
        """Return `tokens` int32 `[batch, L]` and `length` `[batch]`, in every observation mode."""
        tables, scene = self._on(state.place), self._scene(state)
        tokens = tables.scene[scene]
        tokens[:, self._clock_columns] = tables.clock[state.turn]
        return {"tokens": tokens, "length": tables.length[scene]}

    def decode_observation(self, observation: Mapping[str, Array], state: CorridorState) -> list[Any]:
        """Return the strings (mode "text") or the dicts (mode "both") of all rows."""
        texts = [decode(row) for row in observation["tokens"].tolist()]
        if self.obs_mode == "text":
            return texts
        rows = zip(observation["tokens"], observation["length"].tolist(), texts, strict=True)
        return [{"tokens": tokens, "length": length, "text": text} for tokens, length, text in rows]

    def encode_action(self, state: CorridorState, actions: Sequence[Any]) -> np.ndarray:
        """Return the catalogue indices `[batch]` of texts, below 0 for a text that is no action.

        Raises:
            TypeError: If an action is not a string.
        """
        for action in actions:
            if not isinstance(action, str):
                raise TypeError(f"TextCorridor: action={action!r}; expected a string")
        return self.grammar.encode(actions)

    def action_masks(self, state: CorridorState) -> Array:
        """Return the admissible actions of the catalogue `[batch, 6]`, in mode "slots" of the list `[batch, doors]`."""
        return self._on(state.place).mask[state.place]

    def information(self, state: CorridorState) -> Mapping[str, Array]:
        """Return the info arrays of the class docstring, all functions of the state."""
        tables, place = self._on(state.place), state.place
        return {
            "success": tables.success[place],
            "score": 1.0 + tables.potential[place],
            "task_uid": tables.task_uid[place],
            "state_key": tables.state_key[place],
            "anchor": tables.anchor[self._scene(state)],
            # A copy: what users are given is never the state's own memory.
            "turn": state.turn + 0,
            "is_action_valid": state.last < REFUSED,
        }

    def state_key(self, state: CorridorState) -> Array:
        """Return the hash `[batch]` of task and room."""
        return self._on(state.place).state_key[state.place]

    def _scene(self, state: CorridorState) -> Array:
        return state.last * (self.tasks * self.rooms) + state.place

    def _on(self, array: Array) -> CorridorTables:
        """The tables in the library and on the device of an array."""
        if isinstance(array, np.ndarray):
            return self._tables
        device = str(array.device)
        if device not in self._copies:
            self._copies[device] = map_arrays(lambda table: table_like(table, array), self._tables)
        return self._copies[device]

    @cached_property
    def _exact(self) -> CorridorExact:
        shape = (self.tasks, self.rooms)
        model = TurnLimitedModel(
            start=self.map.start,
            absorbing=self._tables.success.reshape(shape),
            transition=self.map.transition(self.targets, self.slip),
            rewards=self._rewards_of_turn,
            horizon=self.horizon,
        )
        scenes = self._tables.anchor.reshape(-1, *shape)[[NOTHING, DONE, REFUSED]]
        seen = np.unique(scenes, return_inverse=True)[1].reshape(scenes.shape)
        return CorridorExact(model, np.moveaxis(seen, 0, -1))

    def _rewards_of_turn(self, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """Rewards of moves `[tasks, rooms, rooms]` and of invalid actions `[tasks, rooms]` in a turn."""
        shape, turns = (self.tasks, self.rooms), np.array(turn + 1)
        potential = self._tables.potential.reshape(shape)
        reached = np.repeat(self._tables.success.reshape(shape)[:, None, :], self.rooms, axis=1)
        move = self._reward(reached, turns, potential[:, :, None], potential[:, None, :])
        stay = self._reward(np.zeros(shape, bool), turns, potential, potential)
        return move, stay - self.invalid_penalty

    def enumerate_states(self) -> CorridorState:
        """Return every state in which a decision can fall, whatever was done before it, one row each.

        What text-only rejects ("empty action", "unknown action") lead to is left out.
        """
        return self._exact.states()

    def exact_values(self, probabilities: np.ndarray | None = None) -> ExactValues:
        """Return V, Q and advantage of a policy in every state of `enumerate_states`, the time limit included.

        Args:
            probabilities: Of the actions `[num_states, num_actions]`, inadmissible ones included; None for the optimal
                policy, which sees the state.
        """
        return self._exact.values(probabilities)

    def exact_return(self, probabilities: np.ndarray) -> float:
        """Return the mean episode return, over all tasks, of a policy `[num_states, num_actions]`."""
        return self._exact.values(probabilities).start_value

    def trajectory_probability(self, walk: CorridorState, actions: np.ndarray, probabilities: np.ndarray) -> float:
        """Return how likely a policy is to take a walk by the given actions.

        Args:
            walk: `turns` + 1 consecutive states, the first at the start of an episode.
            actions: int `[turns]`.
            probabilities: Of the actions in the states of `enumerate_states`.
        """
        return self._exact.trajectory_probability(walk, actions, probabilities)

    def oracle(self) -> Oracle:
        """Return the value of the optimal policy that sees the state."""
        kind: Literal["optimum", "bound"] = "optimum" if self._exact.fully_observed else "bound"
        value = self._exact.values().start_value
        return Oracle(value, Estimand(), kind, "dynamic programming over (turn, task, room)")

    def experts(self) -> Mapping[str, Actor]:
        """Return the experts "optimal", "privileged" and "fair".

        The first two see the state: one by dynamic programming (among equally good actions it takes the shortest way),
        one by the shortest way alone. The third knows the tasks and the present observation, and acts by the values
        averaged over the rooms that it may mean.
        """
        actors = {
            "optimal": self._exact.optimal_actor(self._nearness()),
            "privileged": self._exact.preferring_actor(self._nearness()),
            "fair": self._exact.observed_actor(self._nearness()),
        }
        return {kind: self._in_action_mode(actor) for kind, actor in actors.items()}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", uniform over admissible actions, and "shortest_path", the expert "privileged"."""
        random = RandomActor(gym.spaces.Discrete(self.num_actions), self.action_masks)
        return {
            "random": self._in_action_mode(random),
            "shortest_path": self._in_action_mode(self._exact.preferring_actor(self._nearness())),
        }

    def _nearness(self) -> np.ndarray:
        """Minus the distance that each action leaves to the goal, `[tasks, rooms, num_actions]`."""
        return -np.take_along_axis(self.map.distance[:, None, :], np.maximum(self.targets, 0), axis=2)

    def _in_action_mode(self, actor: Actor) -> Actor:
        if self.action_mode == "text":
            return SpeakingActor(actor, self.grammar.texts)
        return SpellingActor(actor, self._tables.actions) if self.action_mode == "tokens" else actor

    def render(self, state: CorridorState, row: int = 0, mode: str = "ansi") -> str:
        """Return what the agent reads, then the map: every room, where its doors lead, the agent (@), the goal (*)."""
        if mode != "ansi":
            return str(super().render(state, row, mode))
        seen = self.observe(take_rows(state, slice(row, row + 1)))["tokens"][0]
        task, here = divmod(int(state.place[row]), self.rooms)
        label, goal = self.map.label[task], int(self.map.goal[task])
        lines = [decode(seen), ""]
        for room in range(self.rooms):
            doors = self.map.named_door[task, room]
            exits = ", ".join(
                f"{self.grammar.texts[name]} -> {label[doors[name]]}" for name in np.flatnonzero(doors >= 0)
            )
            marks = "@" * (room == here) + "*" * (room == goal)
            lines.append(f"{marks:>2} room {label[room]}: {exits}")
        return "\n".join(lines)


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"TextCorridor: {name}={value!r}; expected {expected}")
