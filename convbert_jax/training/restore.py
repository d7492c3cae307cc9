"""Where a run begins: its own checkpoint, another's, or scratch."""

import dataclasses
import json
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
    checkpointer: of the run's own workdir.
    init: builds the state of scratch, as `state.make_init` returns it.
    key: random key for `init`.
    mesh: the devices.
    batches: set to the position of the checkpoint, if there is one.
    resume_from: workdir, or one of its `checkpoints/<step>`; "" for none.
    given: parameters that replace those of scratch.

  Returns:
    The state and what goes with it.

  Raises:
    UserError: if a checkpoint is missing, damaged, of another config or of
      other shapes.
  """
  own = checkpointer.latest_step is not None
  like = sharding.abstract(init, key, mesh)
  if own or resume_from:
    path = checkpointer.workdir if own else resume_from
    checkpoint = _Checkpoint(path, "the workdir" if own else "resume_from")
    run = checkpoint.read_run()
    checkpoints.check_resumable(run["config"], checkpointer.config, path)
    state = TrainState(
      params=checkpoint.read_arrays("params", like.params),
      **checkpoint.read_arrays("optimizer", checkpoints.without_params(like)),
    )
    batches.set_state(
      run["position"] if "position" in run else checkpoint.read_old_position()
    )
    gathered = {
      name: run[name]
      for name in run
      if name not in ("config", "position", "checksums")
    }
    return Restored(state, gathered, str(checkpoint))
  if given is None:
    state, _ = sharding.init_state(init, key, mesh)
    return Restored(state, {}, "scratch")
  # Read before the state is built: a refusal should not cost its memory.
  params, source = given(like.params)
  state, _ = sharding.init_state(init, key, mesh)
  params = _merged(state.params, params)
  return Restored(state.replace(params=params), {}, source)


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


class _Checkpoint:
  """One checkpoint to read from."""

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
    self._earlier = [other for other in steps if other < self.step]
    self._path = folder / FOLDER / str(self.step)

  def __str__(self) -> str:
    return f"checkpoint {self.step} of {self._path.parent.parent}"

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
      raise self._damaged(_unreadable("loader", error)) from error

  def read_arrays(self, item: str, like: Any) -> Any:
    """Reads the item `params` or `optimizer` onto the devices."""
    self._check_shapes(item, like)
    arrays = self._read(item, ocp.args.StandardRestore(like))
    wanted = self.read_run()["checksums"][item]
    if checkpoints.checksum(arrays) != wanted:
      raise self._damaged(f"{item} is not what was saved")
    return arrays

  def _read(self, item: str, args: ocp.args.CheckpointArgs) -> Any:
    try:
      composite = ocp.args.Composite(**{item: args})
      return self._manager.restore(self.step, args=composite)[item]
    except Exception as error:
      # Shapes have been compared, so the files are to blame.
      raise self._damaged(_unreadable(item, error)) from error

  def _damaged(self, how: str) -> UserError:
    mend = "no older one is there, so start in another workdir"
    if self._earlier:
      mend = (
        f"delete or move that folder to go on from step {self._earlier[-1]}"
      )
    return UserError(f"checkpoint {self._path} is damaged: {how}; {mend}")

  def _check_shapes(self, item: str, like: Any) -> None:
    try:
      saved = self._manager.item_metadata(self.step)[item].tree
      there = {
        name: tuple(leaf.shape) for name, leaf in _named_leaves(saved).items()
      }
    except Exception as error:
      raise self._damaged(_unreadable(item, error)) from error
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


def _unreadable(item: str, error: Exception) -> str:
  reason = str(error).strip().split("\n")[0][:200]
  return f"{item} cannot be read ({type(error).__name__}: {reason})"


def _named_leaves(tree: Any) -> dict[str, Any]:
  leaves, _ = jax.tree.flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in leaves
  }
