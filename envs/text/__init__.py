"""Multi-turn text worlds."""
