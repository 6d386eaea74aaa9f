"""On-policy policy gradients."""
