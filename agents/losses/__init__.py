"""Pure functions of tensors: surrogates, advantages, value losses."""
