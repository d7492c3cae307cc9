"""Where a run begins: its own checkpoint, another's, or scratch."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.training import checkpoint as checkpoints
from convbert_jax.training import sharding
from convbert_jax.training.checkpoint import FOLDER
from convbert_jax.training.resumable import check_resumable
from convbert_jax.training.state import TrainState

# Reads the parameters that a new run starts from: from the tree of shapes and
# shardings of all parameters to the tree of those that are given, arrays that
# the run may reuse, and where they come from, for people. What the tree leaves
# out starts fresh.
GivenParams = Callable[[Any], tuple[Any, str]]


@dataclasses.dataclass(frozen=True)
class Restored:
  """Where a run begins.

  Attributes:
    state: the state, on its devices.
    gathered: of the report that was being gathered, for `loop.train`.
    source: where the state came from, for people.
  """

  state: TrainState
  gathered: dict[str, Any]
  source: str


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
    checkpoint = _Checkpoint(resume_from, "resume_from")
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

  A single process puts damaged ones aside. With several, a person is asked.
  """
  while True:
    checkpoint = _Checkpoint(checkpointer.workdir, "the workdir")
    try:
      return checkpoint.resume(like, batches, checkpointer.config)
    except _Damaged as damage:
      # Of several processes one alone may have found it.
      if not checkpoint.earlier or jax.process_count() > 1:
        raise
      place = checkpointer.put_aside(checkpoint.step)
      print(
        f"warning: {damage.what}; it is kept as {place}, and the run goes on"
        f" from step {checkpoint.earlier[-1]}",
        file=sys.stderr,
      )


def params_of_run(path: str) -> GivenParams:
  """Gives all parameters of another run's checkpoint.

  Args:
    path: its workdir, or one of its `checkpoints/<step>`; read only when a run
      starts from it.
  """

  def read(like: Any) -> tuple[Any, str]:
    checkpoint = _Checkpoint(path, "init_from")
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
  checkpoint = _Checkpoint(path, "workdir", step)
  return checkpoint.read_arrays("params", like), checkpoint.step


class _Damaged(UserError):
  """A checkpoint cannot be read, or is not what was saved.

  Attributes:
    what: the message without the way on.
  """

  def __init__(self, what: str, way_on: str) -> None:
    super().__init__(f"{what}; {way_on}")
    self.what = what


class _Checkpoint:
  """One checkpoint to read from.

  Attributes:
    step: its step.
    earlier: the steps of older ones beside it, ascending.
  """

  def __init__(self, path: str, said_as: str, step: int | None = None) -> None:
    folder = files.absolute(path)
    if step is None and folder.name.isdigit() and folder.parent.name == FOLDER:
      folder, step = folder.parent.parent, int(folder.name)
    self._manager = None
    steps = []
    if (folder / FOLDER).is_dir():
      self._manager = checkpoints.open_manager(folder / FOLDER, create=False)
      steps = sorted(self._manager.all_steps())
    if not steps or (step is not None and step not in steps):
      found = ", ".join(map(str, steps)) or "none"
      raise UserError(
        f"{said_as}={path}: no checkpoint{'' if step is None else f' {step}'}"
        f" there (found: {found})"
      )
    self.step = steps[-1] if step is None else step
    self.earlier = [other for other in steps if other < self.step]
    self._path = folder / FOLDER / str(self.step)

  def __str__(self) -> str:
    return f"checkpoint {self.step} of {self._path.parent.parent}"

  def resume(
    self,
    like: TrainState,
    batches: checkpoints.ResumableIterator,
    config: Mapping[str, Any],
  ) -> Restored:
    """Reads all of it, for a run of the given config."""
    run = self.read_run()
    where = os.fspath(self._path.parent.parent)
    check_resumable(run["config"], config, where, step=self.step)
    state = TrainState(
      params=self.read_arrays("params", like.params),
      **self.read_arrays("optimizer", checkpoints.without_params(like)),
    )
    batches.set_state(
      run["position"] if "position" in run else self.read_old_position()
    )
    gathered = {
      name: run[name]
      for name in run
      if name not in ("config", "position", "checksums")
    }
    return Restored(state, gathered, str(self))

  def read_run(self) -> Any:
    """Reads the item `run`."""
    return self._read("run", ocp.args.JsonRestore())

  def read_old_position(self) -> dict[str, Any]:
    """Reads the position in the data of an earlier version's checkpoint.

    Each process had a file; all count the same batches.
    """
    try:
      path = min((self._path / "loader").glob("process_*.json"))
      return json.loads(path.read_text())
    except (OSError, ValueError) as error:
      raise self.damaged(_unreadable("loader", error)) from error

  def read_arrays(self, item: str, like: Any) -> Any:
    """Reads the item `params` or `optimizer` onto the devices."""
    self._check_shapes(item, like)
    arrays = self._read(item, ocp.args.StandardRestore(like))
    wanted = self.read_run()["checksums"][item]
    if checkpoints.checksum(arrays) != wanted:
      raise self.damaged(f"{item} is not what was saved")
    return arrays

  def _read(self, item: str, args: ocp.args.CheckpointArgs) -> Any:
    try:
      composite = ocp.args.Composite(**{item: args})
      return self._manager.restore(self.step, args=composite)[item]
    except Exception as error:
      if _is_of_the_machine(error):
        raise
      # Shapes have been compared, so the files are to blame.
      raise self.damaged(_unreadable(item, error)) from error

  def damaged(self, how: str) -> _Damaged:
    """Returns the error that says how it is damaged, and the way on."""
    way_on = "no older one is there, so start in another workdir"
    if self.earlier:
      way_on = f"move that folder away to go on from step {self.earlier[-1]}"
    return _Damaged(f"checkpoint {self._path} is damaged: {how}", way_on)

  def _check_shapes(self, item: str, like: Any) -> None:
    try:
      saved = self._manager.item_metadata(self.step)[item].tree
      there = {
        name: tuple(leaf.shape) for name, leaf in _named_leaves(saved).items()
      }
    except Exception as error:
      if _is_of_the_machine(error):
        raise
      raise self.damaged(_unreadable(item, error)) from error
    here = {
      name: tuple(leaf.shape) for name, leaf in _named_leaves(like).items()
    }
    differences = [
      f"{name}: {there.get(name, 'absent')} there, "
      f"{here.get(name, 'absent')} here"
      for name in sorted(there.keys() | here.keys())
      if there.get(name) != here.get(name)
    ]
    if differences:
      more = len(differences) - 3
      raise UserError(
        f"{self} does not fit the model ({'; '.join(differences[:3])}"
        f"{f'; and {more} more' if more > 0 else ''}); "
        "give the model the config of that run"
      )


def _is_of_the_machine(error: Exception) -> bool:
  """Says whether reading failed although the files may be whole."""
  passing = (MemoryError, PermissionError, ConnectionError, TimeoutError)
  return isinstance(error, passing) or "RESOURCE_EXHAUSTED" in str(error)


def _unreadable(item: str, error: Exception) -> str:
  reason = str(error).strip().split("\n")[0][:200]
  return f"{item} cannot be read ({type(error).__name__}: {reason})"


def _named_leaves(tree: Any) -> dict[str, Any]:
  leaves, _ = jax.tree.flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in leaves
  }
