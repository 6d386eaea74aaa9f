"""The collector, the loops, checkpoints and logging."""
