"""Where a run begins: its own checkpoint, another's, or scratch."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.training import checkpoint as checkpoints
from convbert_jax.training import sharding
from convbert_jax.training.saved_checkpoint import (
  Damaged,
  Restored,
  SavedCheckpoint,
)
from convbert_jax.training.state import TrainState

# Reads the parameters that a new run starts from: from the tree of shapes and
# shardings of all parameters to the tree of those that are given, arrays that
# the run may reuse, and where they come from, for people. What the tree leaves
# out starts fresh.
GivenParams = Callable[[Any], tuple[Any, str]]


def restore_or_init(
  checkpointer: checkpoints.Checkpointer,
  init: Callable[[jax.Array], TrainState],
  key: jax.Array,
  mesh: jax.sharding.Mesh,
  batches: checkpoints.ResumableIterator,
  *,
  resume_from: str = "",
  given: GivenParams | None = None,
) -> Restored:
  """Finds where to begin; the first of these that applies:

  1. the newest checkpoint of the run's own workdir: state and data position;
  2. `resume_from`, another run's: state and data position;
  3. `given`: parameters only, from step 0 on fresh data (a longer sequence
     length, say);
  4. scratch.

  Args:
    checkpointer: of the run's own workdir. Its newest checkpoint is put aside
      if it is damaged and an older one is there.
    init: builds the state of scratch, as `state.make_init` returns it.
    key: random key for `init`.
    mesh: the devices.
    batches: set to the position of the checkpoint, if there is one.
    resume_from: workdir, or one of its `checkpoints/<step>`; "" for none.
    given: parameters that replace those of scratch.

  Returns:
    The state and what goes with it.

  Raises:
    UserError: if a checkpoint is missing, of another config or of other
      shapes, or none is whole.
  """
  like = sharding.abstract(init, key, mesh)
  if checkpointer.latest_step is not None:
    return _resume_own(checkpointer, like, batches)
  if resume_from:
    checkpoint = SavedCheckpoint(resume_from, "resume_from")
    restored = checkpoint.resume(like, batches, checkpointer.config)
    restored.gathered.pop("row", None)  # It stands in that run's metrics.
    return restored
  if given is None:
    state, _ = sharding.init_state(init, key, mesh)
    return Restored(state, {}, "scratch")
  # Read before the state is built: a refusal should not cost its memory.
  params, source = given(like.params)
  state, _ = sharding.init_state(init, key, mesh)
  params = _merged(state.params, params)
  return Restored(state.replace(params=params), {}, source)


def _resume_own(
  checkpointer: checkpoints.Checkpointer,
  like: TrainState,
  batches: checkpoints.ResumableIterator,
) -> Restored:
  """Returns the newest whole checkpoint.

  Damaged ones are put aside, as long as an older one is there.
  """
  while True:
    *earlier, (step, folder) = checkpointer.places
    checkpoint = SavedCheckpoint(folder, "the workdir", step)
    try:
      checkpoint.check_by_first(like)
      return checkpoint.resume(like, batches, checkpointer.config)
    except Damaged as damage:
      if not earlier:
        raise
      place = checkpointer.put_aside(step, folder)
      if jax.process_index() == 0:
        print(
          f"warning: {damage.what}; it is kept as {place}, and the run goes on"
          f" from step {earlier[-1][0]}",
          file=sys.stderr,
        )


def params_of_run(path: str) -> GivenParams:
  """Gives all parameters of another run's checkpoint.

  Args:
    path: its workdir, or one of its `checkpoints/<step>`; read only when a run
      starts from it.
  """

  def read(like: Any) -> tuple[Any, str]:
    checkpoint = SavedCheckpoint(path, "init_from")
    params = checkpoint.read_arrays("params", like)
    return params, f"parameters of {checkpoint}"

  return read


def params_of_arrays(params: Mapping[str, Any], source: str) -> GivenParams:
  """Gives parameters that are in memory.

  Args:
    params: some subtrees of the parameters, NumPy arrays of their shapes.
    source: where they come from, for people.
  """
  return lambda like: (_placed(params, like), source)


def _placed(params: Mapping[str, Any], like: Any) -> Any:
  """Puts arrays where the run's will live."""
  placed = {}
  for name, value in params.items():
    if isinstance(value, Mapping):
      placed[name] = _placed(value, like[name])
      continue
    value = np.asarray(value, like[name].dtype)
    placed[name] = jax.make_array_from_callback(
      like[name].shape, like[name].sharding, lambda index, a=value: a[index]
    )
  # A CPU device reads NumPy's memory in place, but a step reuses its state's.
  return _copy(placed)


@jax.jit
def _copy(tree: Any) -> Any:
  return jax.tree.map(jnp.copy, tree)


def _merged(fresh: Any, given: Any) -> Any:
  """Returns a tree with the given subtrees in the place of the fresh ones."""
  if not isinstance(given, Mapping):
    return given
  return {
    name: _merged(value, given[name]) if name in given else value
    for name, value in fresh.items()
  }


def restore_params(
  path: str, like: Any, step: int | None = None
) -> tuple[Any, int]:
  """Reads a run's parameters alone.

  Args:
    path: its workdir, or one of its `checkpoints/<step>`.
    like: the tree of shapes and shardings, from `sharding.abstract`.
    step: which checkpoint; None for the newest.

  Returns:
    The parameters, and their step.

  Raises:
    UserError: if there is no such checkpoint, or it is damaged or of other
      shapes.
  """
  checkpoint = SavedCheckpoint(path, "workdir", step)
  return checkpoint.read_arrays("params", like), checkpoint.step
