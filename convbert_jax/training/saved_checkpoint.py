"""One checkpoint of a run, read and compared with what was saved."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.training import agreement, checkpoint
from convbert_jax.training.checkpoint import FOLDER
from convbert_jax.training.orbax_manager import open_manager
from convbert_jax.training.resumable import check_resumable
from convbert_jax.training.state import TrainState


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


class Damaged(UserError):
  """A checkpoint cannot be read, or is not what was saved.

  Attributes:
    what: the message without the way on.
  """

  def __init__(self, what: str, way_on: str) -> None:
    super().__init__(f"{what}; {way_on}")
    self.what = what


class SavedCheckpoint:
  """One checkpoint to read from.

  Attributes:
    step: its step.
    earlier: the steps of older ones beside it, ascending.
  """

  def __init__(
    self, path: str, said_as: str, step: int | None = None, **options: Any
  ) -> None:
    """Finds it.

    Args:
      path: a run's workdir, or one of its `checkpoints/<step>`.
      said_as: the config field that names the path, for messages.
      step: which checkpoint of a workdir; None for the newest.
      **options: of the reader, see `open_manager`.

    Raises:
      UserError: if there is none.
    """
    folder = files.absolute(path)
    if step is None and folder.name.isdigit() and folder.parent.name == FOLDER:
      folder, step = folder.parent.parent, int(folder.name)
    self._manager = None
    steps = []
    if (folder / FOLDER).is_dir():
      self._manager = open_manager(folder / FOLDER, create=False, **options)
      steps = sorted(self._manager.all_steps())
    if not steps or (step is not None and step not in steps):
      found = ", ".join(map(str, steps)) or "none"
      raise UserError(
        f"{said_as}={path}: no checkpoint{'' if step is None else f' {step}'}"
        f" there (found: {found}); name the folder of a run of"
        " experiments.pretrain, or one of its checkpoints"
      )
    self.step = steps[-1] if step is None else step
    self.earlier = [other for other in steps if other < self.step]
    self._path = folder / FOLDER / str(self.step)

  def __str__(self) -> str:
    return f"checkpoint {self.step} of {self._path.parent.parent}"

  def resume(
    self,
    like: TrainState,
    batches: checkpoint.ResumableIterator,
    config: Mapping[str, Any],
  ) -> Restored:
    """Reads all of it, for a run of the given config."""
    run = self.read_run()
    where = os.fspath(self._path.parent.parent)
    check_resumable(run["config"], config, where, step=self.step)
    state = TrainState(
      params=self.read_arrays("params", like.params),
      **self.read_arrays("optimizer", checkpoint.without_params(like)),
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

  def check_by_first(self, like: TrainState) -> None:
    """Has the first of several processes read all of it, before all do.

    Damage may lie where one process alone reads, and the others would wait for
    it. A single process notices while it reads.

    Args:
      like: shapes of the state.

    Raises:
      Damaged: in all processes, if the first finds it so.
    """
    if jax.process_count() == 1:
      return
    damage = self._damage(like) if jax.process_index() == 0 else None
    if agreement.is_so_in_first(damage is not None):
      raise damage or self.damaged("the first process says how")

  def _damage(self, like: TrainState) -> Damaged | None:
    """Reads it into this process's memory; returns what is wrong."""
    alone = ocp.options.MultiprocessingOptions(
      primary_host=0, active_processes={0}, barrier_sync_key_prefix="check"
    )
    here = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    try:
      found = SavedCheckpoint(
        os.fspath(self._path), "the workdir", multiprocessing_options=alone
      )
      found.read_arrays("params", here.params)
      found.read_arrays("optimizer", checkpoint.without_params(here))
    except Damaged as damage:
      return damage
    except UserError:  # All processes will find it, and say so.
      pass
    return None

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
    if checkpoint.checksum(arrays) != wanted:
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

  def damaged(self, how: str) -> Damaged:
    """Returns the error that says how it is damaged, and the way on."""
    way_on = "no older one is there, so start in another workdir"
    if self.earlier:
      way_on = f"move that folder away to go on from step {self.earlier[-1]}"
    return Damaged(f"checkpoint {self._path} is damaged: {how}", way_on)

  def _check_shapes(self, item: str, like: Any) -> None:
    try:
      metadata = self._manager.item_metadata(self.step)[item]
      if metadata is None:
        raise FileNotFoundError
      saved = metadata.tree
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
  """Says in plain words what libraries say at length."""
  what = "is cut short or has changed"
  if isinstance(error, FileNotFoundError) or "NOT_FOUND" in str(error):
    what = "is missing"
  return f"{item} cannot be read: a file {what} ({type(error).__name__})"


def _named_leaves(tree: Any) -> dict[str, Any]:
  leaves, _ = jax.tree.flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in leaves
  }
