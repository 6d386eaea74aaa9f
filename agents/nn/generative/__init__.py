"""Generative action heads: flows and diffusions, which turn noise into actions step by step.

One convention of time holds throughout. A flow's time t runs from 0, where there is noise z, to 1, where there is the
action a: x_t = (1 - t) z + t a on the straight path, and the velocity to learn is a - z. A diffusion's levels run down
from K, nearly pure noise, to 0, the action.

A head called with observations says what its policy is there; observations are encoded once for all steps and draws.
All noise is given from outside, so that what was drawn when acting can be kept and found again.
"""
