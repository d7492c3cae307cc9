"""Pre-training: train step, evaluation, run."""
