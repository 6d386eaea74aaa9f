"""The `palaestra` command: one subcommand a file in `palaestra.scripts`."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

COMMANDS = {
    "train": "train an agent on an env id; logs, evaluations and checkpoints go to runs/",
    "resume": "go on with a run that was interrupted or killed, bit for bit",
    "evaluate": "measure a trained agent or a reference policy, against the oracle where there is one",
    "play": "watch an agent or a reference policy act, or record a video of it",
    "envs": "list the suite's worlds, or describe one",
    "agents": "list the agents, or describe one with all its settings",
    "systems": "list the published systems that the suite implements, with tests and verdicts",
    "speed": "time the suite against its peers in the same run",
    "benchmark": "run the training that a committed claim needs",
    "report": "make results/README.md and its pictures from the rows in results/",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand and return its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from palaestra import __version__

        print(f"palaestra {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(COMMANDS)}"
        print(f"palaestra: unknown command {name!r}; {hint}", file=sys.stderr)
        return 2
    return int(import_module(f"palaestra.scripts.{name}").main(rest) or 0)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: palaestra COMMAND [--help] ...",
            "",
            "Environments for Gymnasium and the agents that train in them.",
            "",
            *lines,
            "",
            "A first run:  palaestra train --agent ppo --env palaestra/OneStoreBacklog-v0 --total-timesteps 200000",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
