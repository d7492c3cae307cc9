"""Linen modules; the only place with parameters."""
