"""MuJoCo models as batched simulators, and Gymnasium's MuJoCo worlds on them."""
