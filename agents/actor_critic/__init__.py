"""Off-policy actor-critics."""
