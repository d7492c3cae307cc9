"""A model of 36 parameters and its data, for tests of the loop.

Run as a program it trains in a process of its own, which a test can kill:
`python tests/toy_training.py WORKDIR '{"num_steps": 20, ...}'`.
"""

import dataclasses
import json
import os
import resource
import sys
import time

if __name__ == "__main__":
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from convbert_jax.errors import UserError
from convbert_jax.ops import partitioning
from convbert_jax.training import checkpoint, restore, sharding
from convbert_jax.training import state as states
from convbert_jax.training.checkpoint import CheckpointConfig
from convbert_jax.training.fit import FitConfig, Program, fit
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from convbert_jax.training.reporting import ReportConfig
from convbert_jax.training.step import apply_gradients

ROWS, WIDTH, RECORDS = 8, 8, 40
OPTIMIZER = make_optimizer(
  OptimizerConfig(learning_rate=0.05, warmup_steps=3), 100
)
CONFIG = {
  "seed": 0,
  "num_steps": 20,
  "optimizer": dataclasses.asdict(
    OptimizerConfig(learning_rate=0.05, warmup_steps=3)
  ),
  "report": {"every": 4},
}


class Batches:
  """Shuffled batches for ever; the position is a dict, as Grain's is."""

  def __init__(self, nan_record=None, pause=0.0, file_limit=None):
    self.index = 0
    self.file_limit = file_limit
    self.nan_record = nan_record
    self.pause = pause

  def __next__(self):
    time.sleep(self.pause if self.index else 0)
    if self.file_limit:  # The disk fills up once the run is on its way.
      resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_limit,) * 2)
    epoch, place = divmod(self.index * ROWS, RECORDS)
    self.index += 1
    order = np.random.default_rng(epoch).permutation(RECORDS)
    ids = order[place : place + ROWS]
    inputs = np.random.default_rng(7).normal(size=(RECORDS, WIDTH))[ids]
    if self.nan_record is not None:
      inputs[ids == self.nan_record] = np.nan
    return {
      "inputs": inputs.astype(np.float32),
      "record_ids": ids.astype(np.int64),
    }

  def get_state(self):
    return {"index": self.index}

  def set_state(self, position):
    self.index = position["index"]


def init_params(key):
  kernel = nn.with_logical_partitioning(
    nn.initializers.normal(0.5), ("embed", "mlp")
  )(key, (WIDTH, 4))
  return {"dense": {"kernel": kernel, "bias": jnp.zeros(4)}}


def train_step(state, batch, rng):
  def loss_fn(params):
    noisy = batch["inputs"] + 0.1 * jax.random.normal(
      rng, batch["inputs"].shape
    )
    outputs = noisy @ params["dense"]["kernel"]
    outputs += params["dense"]["bias"][None]
    return jnp.mean(jnp.square(outputs - batch["inputs"][:, :4]))

  loss, grads = jax.value_and_grad(loss_fn)(state.params)
  state, metrics = apply_gradients(state, grads, OPTIMIZER)
  return state, metrics | {
    "loss": (loss, jnp.float32(1)),
    "error": (loss * ROWS, jnp.float32(ROWS)),
  }


def evaluate(params):
  kernel = np.asarray(params["dense"]["kernel"], np.float64)
  return {"kernel_sum": float(kernel.sum()), "kernel_sum_baseline": 0.0}


def make_mesh(num_devices):
  return jax.sharding.Mesh(
    np.array(jax.devices()[:num_devices]).reshape(num_devices, 1, 1),
    partitioning.MESH_AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 3,
  )


def program(
  num_devices=1,
  step=train_step,
  init_params=init_params,
  max_skipped_steps=0,
):
  init = states.make_init(init_params, OPTIMIZER)
  return Program(init, step, make_mesh(num_devices), max_skipped_steps)


def run(
  workdir,
  *,
  config=CONFIG,
  num_steps=20,
  report_every=4,
  save_every=5,
  eval_every=6,
  keep_last=3,
  keep_every=0,
  num_devices=1,
  batches=None,
  step=train_step,
  max_skipped_steps=0,
  evaluate=evaluate,
  resume_from="",
  local_path="",
  local_every=0,
  given=None,
  **report,
):
  """Fits the toy as pre-training fits a model; returns the state."""
  state, _ = fit(
    program(num_devices, step, max_skipped_steps=max_skipped_steps),
    workdir,
    config,
    batches or Batches(),
    FitConfig(
      seed=0,
      num_steps=num_steps,
      tokens_per_step=ROWS,
      eval_every=eval_every,
      checkpoint=CheckpointConfig(
        save_every=save_every,
        keep_last=keep_last,
        keep_every=keep_every,
        resume_from=resume_from,
        local_path=local_path,
        local_every=local_every,
      ),
      report=ReportConfig(
        every=report_every, **{"tensorboard": False, **report}
      ),
    ),
    evaluate=evaluate,
    given=given,
  )
  return state


def save_states(folder, steps, config=CONFIG, **keep):
  """Saves the initial state under some steps, as quick as can be."""
  toy = program()
  state, _ = sharding.init_state(toy.init, jax.random.key(1), toy.mesh)
  options = CheckpointConfig(save_every=1, **{"keep_last": 3, **keep})
  with checkpoint.Checkpointer(folder, config, options) as checkpointer:
    for step in steps:
      state = state.replace(step=jnp.full_like(state.step, step))
      gathered = {"window": {"loss": [0.1, 3.0]}}
      checkpointer.save(state, step, {"index": step}, gathered)
  return state


def restored(
  folder, config=CONFIG, init_params=init_params, resume_from="", init_from=""
):
  toy = program(init_params=init_params)
  batches = Batches()
  with checkpoint.Checkpointer(
    folder, config, CheckpointConfig(save_every=1)
  ) as checkpointer:
    found = restore.restore_or_init(
      checkpointer,
      toy.init,
      jax.random.key(0),
      toy.mesh,
      batches,
      resume_from=resume_from,
      given=restore.params_of_run(init_from) if init_from else None,
    )
  return found, batches.index


def main():
  workdir, options = sys.argv[1], json.loads(sys.argv[2])
  batches = Batches(
    pause=options.pop("pause", 0.0),
    file_limit=options.pop("file_limit", None),
  )
  try:
    run(workdir, batches=batches, **options)
  except UserError as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  main()
