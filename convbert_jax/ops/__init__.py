"""Pure array functions, without parameters and without Flax."""
