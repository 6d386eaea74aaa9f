"""Learners that differentiate through a world: the gradient of the cost is that of the simulation itself."""
