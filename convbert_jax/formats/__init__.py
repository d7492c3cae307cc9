"""Checkpoints of every format, read and written."""
