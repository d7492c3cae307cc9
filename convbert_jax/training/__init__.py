"""Steps and arrays: state, mesh, optimizer, loop, checkpoints, reports."""
