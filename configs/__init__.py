"""Values of experiments; imports nothing of this project."""
