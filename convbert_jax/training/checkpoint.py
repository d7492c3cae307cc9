"""Checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder `checkpoints/<step>/` that appears whole or not at
all, with `params`, `optimizer` (the step and the moments) and `run` (the
config, the position in the data and the sums of the report that was being
gathered). None of it depends on how many processes or devices there are.
"""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.training import agreement, run_files
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
  """

  save_every: int
  keep_last: int = 1
  keep_every: int = 0
  resume_from: str = ""
  init_from: str = ""

  def __post_init__(self) -> None:
    if self.keep_last < 1:
      raise UserError(
        f"checkpoint.keep_last={self.keep_last} must be at least 1"
      )
    for name in ("save_every", "keep_every"):
      if getattr(self, name) < 0:
        raise UserError(
          f"checkpoint.{name}={getattr(self, name)} must not be negative"
        )


class Checkpointer:
  """Saves in the background and deletes old checkpoints."""

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
    _check_workdir(epath.Path(folder), self.config)
    with files.explained_disk_errors(folder):
      self._manager = open_manager(
        files.absolute(folder) / FOLDER,
        create=True,
        cleanup_tmp_directories=True,
        max_to_keep=options.keep_last,
        keep_period=options.keep_every or None,
      )

  def __enter__(self) -> Self:
    """Closes at the end of the `with` block."""
    return self

  def __exit__(self, *_: object) -> None:
    """Waits for the last save."""
    self.close()

  @property
  def latest_step(self) -> int | None:
    """The newest checkpoint's step; None if there is none."""
    return self._manager.latest_step()

  def save(
    self,
    state: TrainState,
    step: int,
    position: Mapping[str, Any],
    gathered: Mapping[str, Any],
  ) -> None:
    """Copies the state to the host and writes it in the background.

    The state may be donated as soon as this returns. A step that is saved
    already is left alone.

    Args:
      state: after `step` updates, whose losses have been seen finite.
      step: the state's step, as an int.
      position: in the data, after `step` batches.
      gathered: of the report that is being gathered, plain values by name.

    Raises:
      UserError: if this save or the one before it found the disk full.
    """
    if step in self._manager.all_steps():
      return
    arrays = {"params": state.params, "optimizer": without_params(state)}
    run = {
      "config": self.config,
      "position": dict(position),
      **gathered,
      "checksums": {name: checksum(tree) for name, tree in arrays.items()},
    }
    with files.explained_disk_errors(self._manager.directory):
      self._manager.save(
        step,
        force=True,
        args=ocp.args.Composite(
          **{n: ocp.args.StandardSave(tree) for n, tree in arrays.items()},
          run=ocp.args.JsonSave(run),
        ),
      )

  def put_aside(self, step: int) -> str:
    """Moves a damaged checkpoint out of the way; all processes must call it.

    Args:
      step: of the checkpoint.

    Returns:
      Its new place.
    """
    folder = files.absolute(self.workdir) / DAMAGED_FOLDER
    number = 0
    while (
      place := folder / f"{step}{f'_{number}' if number else ''}"
    ).exists():
      number += 1
    agreement.is_so_in_first(True)  # All have seen which names are taken.
    if jax.process_index() == 0:
      with files.explained_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (self._manager.directory / str(step)).rename(place)
    agreement.is_so_in_first(True)  # It is done.
    self._manager.reload()
    return os.fspath(place)

  def check(self) -> None:
    """Raises what failed in the background; cheap."""
    with files.explained_disk_errors(self._manager.directory):
      self._manager.check_for_errors()

  def wait(self) -> None:
    """Returns when the last save is on the disk; raises if it failed."""
    with files.explained_disk_errors(self._manager.directory):
      self._manager.wait_until_finished()

  def reached_preemption(self, step: int) -> bool:
    """Returns whether all processes agreed to stop at this step."""
    return self._manager.reached_preemption(step)

  def close(self) -> None:
    """Waits for the last save and closes the folder."""
    with files.explained_disk_errors(self._manager.directory):
      self._manager.close()


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


def open_manager(
  folder: os.PathLike[str], **options: Any
) -> ocp.CheckpointManager:
  """Opens a folder of checkpoints."""
  quiet_orbax()
  registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
  for item, handler in (
    ("params", ocp.handlers.StandardCheckpointHandler()),
    ("optimizer", ocp.handlers.StandardCheckpointHandler()),
  ):
    registry.add(item, ocp.args.StandardSave, handler)
    registry.add(item, ocp.args.StandardRestore, handler)
  run = ocp.handlers.JsonCheckpointHandler()
  registry.add("run", ocp.args.JsonSave, run)
  registry.add("run", ocp.args.JsonRestore, run)
  return ocp.CheckpointManager(
    folder,
    options=ocp.CheckpointManagerOptions(**options),
    handler_registry=registry,
  )


def _check_workdir(folder: epath.Path, config: Mapping[str, Any]) -> None:
  """Refuses a workdir that was begun with another config."""
  path = folder / run_files.CONFIG_FILE
  if path.exists():
    check_resumable(json.loads(path.read_text()), config, os.fspath(folder))


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  return "/orbax/" not in record.pathname.replace("\\", "/")


class _UnraisableHook:
  """Passes on all unraisable exceptions but those of a closed loop."""

  def __init__(self, before: object) -> None:
    self._before = before

  def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      self._before(unraisable)


def quiet_orbax() -> None:
  """Keeps Orbax from reporting an error twice; harmless to call again.

  It logs tracebacks of its threads, and TensorStore's callbacks complain of a
  closed event loop, both beside the exception that reaches the caller.
  """
  # Orbax logs through absl's logger. A filter is kept once however often it
  # is added.
  logging.getLogger("absl").addFilter(_is_not_of_orbax)
  if not isinstance(sys.unraisablehook, _UnraisableHook):
    sys.unraisablehook = _UnraisableHook(sys.unraisablehook)
