"""Kernels for one kind of device; each has its reference in `ops/`."""
