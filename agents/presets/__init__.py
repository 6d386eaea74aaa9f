"""Tuned configurations: one YAML file an agent, one entry an env id."""
