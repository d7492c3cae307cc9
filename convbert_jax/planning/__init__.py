"""A run before it is run: what its compiled program says."""
