"""What the costs of inventory worlds are measured by."""

from palaestra.protocols import Estimand

PERIODS, IGNORED = 5000, 3000

LONG_RUN = Estimand("long_run_reward", "reward (minus cost) per period", PERIODS, IGNORED)
"""Mean reward in a period of one unbroken run of 5,000 periods, of which the first 3,000 do not count."""

LONG_RUN_PER_STORE = Estimand("long_run_reward", "reward (minus cost) per store and period", PERIODS, IGNORED)
"""The same for worlds of several stores."""
