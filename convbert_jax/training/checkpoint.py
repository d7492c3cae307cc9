"""Checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder `checkpoints/<step>/` that appears whole or not at
all, with `params`, `optimizer` (the step and the moments) and `run` (the
config, the position in the data and the sums of the report that was being
gathered). None of it depends on how many processes or devices there are.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from convbert_jax import files, ranges
from convbert_jax.errors import UserError
from convbert_jax.training import agreement, run_files
from convbert_jax.training.orbax_manager import open_manager
from convbert_jax.training.resumable import check_resumable
from convbert_jax.training.state import TrainState

FOLDER = run_files.CHECKPOINTS_FOLDER
# Where damaged checkpoints are kept, for people to look at.
DAMAGED_FOLDER = "damaged"


class ResumableIterator(Protocol):
  """Batches for ever, from a position that can be kept as JSON."""

  def __next__(self) -> Mapping[str, Any]:
    """Returns the next batch."""
    ...

  def get_state(self) -> dict[str, Any]:
    """Returns the position after the last batch, the same in all processes."""
    ...

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to a position."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
  """When to save, what to keep and where to begin.

  Attributes:
    save_every: steps between saves; 0 for at the end only.
    keep_last: how many of the newest checkpoints stay.
    keep_every: checkpoints at multiples of this step stay too; 0 for none.
    resume_from: another run whose whole state is taken over; "" for none.
    init_from: a model whose parameters are taken over; "" for none.
    local_path: a quick disk for further checkpoints; "" for none. All processes
      must see it.
    local_every: steps between saves there, of which the newest stays.
  """

  save_every: int
  keep_last: int = 1
  keep_every: int = 0
  resume_from: str = ""
  init_from: str = ""
  local_path: str = ""
  local_every: int = 0

  def __post_init__(self) -> None:
    ranges.check("checkpoint", vars(self))
    if bool(self.local_path) != bool(self.local_every):
      raise UserError(
        f"checkpoint.local_path={self.local_path!r} and"
        f" checkpoint.local_every={self.local_every} need each other: give both"
        " or none"
      )
    if not files.is_local(self.local_path):
      raise UserError(
        f"checkpoint.local_path={self.local_path} must be on a file system"
      )


class Checkpointer:
  """Saves in the background and deletes old checkpoints.

  Beside those in the workdir there may be further ones on a quicker disk, saved
  more often; whoever goes on takes the newest of all.
  """

  def __init__(
    self,
    folder: str,
    config: Mapping[str, Any],
    options: CheckpointConfig,
  ) -> None:
    """Opens a run's checkpoints, clearing away what a kill left half done.

    Args:
      folder: the run's workdir, made if need be.
      config: nested config that is saved with every checkpoint.
      options: which checkpoints stay.

    Raises:
      UserError: if the folder cannot be written, or it holds a run of another
        config.
    """
    self.workdir = folder
    self.config = json.loads(files.to_json(config))
    has_begun = _check_workdir(epath.Path(folder), self.config)
    # By the folder that they are in: the workdir, then the quick disk.
    self._managers = {folder: _open(folder, options)}
    if options.local_path:
      local = _local_folder(options.local_path, folder)
      if not has_begun:
        _clear(local)  # Of a run that was deleted.
      once = dataclasses.replace(options, keep_last=1, keep_every=0)
      # Both may be at work at once, and must not meet each other's barriers.
      apart = ocp.options.MultiprocessingOptions(
        barrier_sync_key_prefix="local"
      )
      self._managers[local] = _open(local, once, multiprocessing_options=apart)

  def __enter__(self) -> Self:
    """Closes at the end of the `with` block."""
    return self

  def __exit__(self, *_: object) -> None:
    """Waits for the last save."""
    self.close()

  @property
  def places(self) -> list[tuple[int, str]]:
    """Every checkpoint's step and the folder of its run, ascending."""
    return sorted(
      (step, folder)
      for folder, manager in self._managers.items()
      for step in manager.all_steps()
    )

  @property
  def latest_step(self) -> int | None:
    """The newest checkpoint's step; None if there is none."""
    return max((step for step, _ in self.places), default=None)

  def save(
    self,
    state: TrainState,
    step: int,
    position: Mapping[str, Any],
    gathered: Mapping[str, Any],
    *,
    locally: bool = False,
  ) -> None:
    """Copies the state to the host and writes it in the background.

    The state may be donated as soon as this returns. A step that is saved
    already is left alone.

    Args:
      state: after `step` updates, whose losses have been seen finite.
      step: the state's step, as an int.
      position: in the data, after `step` batches.
      gathered: of the report that is being gathered, plain values by name.
      locally: whether to save on the quick disk instead of in the workdir.

    Raises:
      UserError: if this save or the one before it found the disk full.
    """
    manager = list(self._managers.values())[-1 if locally else 0]
    if step in manager.all_steps():
      return
    arrays = {"params": state.params, "optimizer": without_params(state)}
    run = {
      "config": self.config,
      "position": dict(position),
      **gathered,
      "checksums": {name: checksum(tree) for name, tree in arrays.items()},
    }
    with files.explained_disk_errors(manager.directory):
      manager.save(
        step,
        force=True,
        args=ocp.args.Composite(
          **{n: ocp.args.StandardSave(tree) for n, tree in arrays.items()},
          run=ocp.args.JsonSave(run),
        ),
      )

  def put_aside(self, step: int, folder: str) -> str:
    """Moves a damaged checkpoint out of the way; all processes must call it.

    Args:
      step: of the checkpoint.
      folder: that it is in, as `places` says.

    Returns:
      Its new place.
    """
    damaged = files.absolute(folder) / DAMAGED_FOLDER
    number = 0
    while (
      place := damaged / f"{step}{f'_{number}' if number else ''}"
    ).exists():
      number += 1
    manager = self._managers[folder]
    agreement.wait_for_all()  # They have seen which names are taken.
    if jax.process_index() == 0:
      with files.explained_disk_errors(damaged):
        damaged.mkdir(parents=True, exist_ok=True)
        (manager.directory / str(step)).rename(place)
    agreement.wait_for_all()
    manager.reload()
    return os.fspath(place)

  def check(self) -> None:
    """Raises what failed in the background; cheap."""
    for manager in self._managers.values():
      with files.explained_disk_errors(manager.directory):
        manager.check_for_errors()

  def wait(self) -> None:
    """Returns when the last save is on the disk; raises if it failed."""
    for manager in self._managers.values():
      with files.explained_disk_errors(manager.directory):
        manager.wait_until_finished()

  def reached_preemption(self, step: int) -> bool:
    """Returns whether all processes agreed to stop at this step."""
    return self._managers[self.workdir].reached_preemption(step)

  def close(self) -> None:
    """Waits for the last save and closes the folders."""
    for manager in self._managers.values():
      with files.explained_disk_errors(manager.directory):
        manager.close()


def _open(
  folder: str, options: CheckpointConfig, **more: Any
) -> ocp.CheckpointManager:
  with files.explained_disk_errors(folder):
    return open_manager(
      files.absolute(folder) / FOLDER,
      create=True,
      cleanup_tmp_directories=True,
      max_to_keep=options.keep_last,
      keep_period=options.keep_every or None,
      **more,
    )


def _local_folder(local_path: str, workdir: str) -> str:
  """Returns the folder of a run on the quick disk."""
  place = files.absolute(workdir)
  digest = hashlib.sha256(os.fspath(place).encode()).hexdigest()[:8]
  return os.fspath(files.absolute(local_path) / f"{place.name}_{digest}")


def _clear(folder: str) -> None:
  if jax.process_index() == 0:
    shutil.rmtree(folder, ignore_errors=True)
  agreement.wait_for_all()


def without_params(state: TrainState) -> dict[str, Any]:
  """Returns the part of the state that a checkpoint calls `optimizer`."""
  return {"step": state.step, "opt_state": state.opt_state}


@jax.jit
def _sum_bits(tree: Any) -> jax.Array:
  total = jnp.uint32(0)
  for number, leaf in enumerate(jax.tree.leaves(tree)):
    unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(leaf, unsigned)
    total += (2 * number + 1) * jnp.sum(bits, dtype=jnp.uint32)
  return total


def checksum(tree: Any) -> int:
  """Sums the bits of a tree of arrays, the same for every mesh.

  The files' own checks find truncation, but neither a changed byte within an
  array nor a save that read memory which had been reused.

  Args:
    tree: arrays on the devices.

  Returns:
    A number below 2 ** 32.
  """
  return int(_sum_bits(tree))


def _check_workdir(folder: epath.Path, config: Mapping[str, Any]) -> bool:
  """Refuses a workdir of another config; says whether a run has begun there."""
  kept = run_files.read_config(folder)
  if kept is not None:
    check_resumable(kept, config, os.fspath(folder))
  return kept is not None
