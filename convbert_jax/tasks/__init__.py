"""Downstream tasks: one file per kind, one shape for all."""
