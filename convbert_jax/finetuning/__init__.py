"""Runs of a downstream task, and their results."""
