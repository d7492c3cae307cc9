"""Times pre-training on rows of several examples against a row each.

  python -m experiments.benchmarks.packing \\
    --config=configs/pretrain.py:size=tiny,seq=128 --config.data.path=RECORDS \\
    --config.data.packing=128

The ratio says how many times as many examples a second are trained on. It
depends on the records: full ones cannot share a row.
"""

import functools
from collections.abc import Iterator

import jax
from absl import flags
from ml_collections import ConfigDict

from convbert_jax.data import loader
from convbert_jax.errors import UserError
from convbert_jax.ops import partitioning
from convbert_jax.planning.step_program import make_program
from convbert_jax.training import sharding
from experiments import command_line
from experiments.benchmarks.measurement import (
  JSON_HELP,
  median,
  next_batch,
  report,
  speed_ratios,
)

_CONFIG = command_line.ConfigFlag(
  "configs/pretrain.py:size=tiny,seq=128", needs=("objective", "num_steps")
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 10, "N, how many ratios to measure.", lower_bound=2
)
_STEPS = flags.DEFINE_integer(
  "steps", 5, "N, steps of each kind in a round.", lower_bound=1
)
_JSON = flags.DEFINE_string("json", None, JSON_HELP)

# Batches whose shapes are compiled before anything is timed.
_COMPILED = 32


def main() -> None:
  """Measures and prints."""
  config = _CONFIG.value
  if not config.data.packing:
    raise UserError("give --config.data.packing=N, tokens in a packed row")
  packed, plain = (_losses(config, n) for n in (config.data.packing, 0))
  ratios = speed_ratios(packed, plain, _ROUNDS.value, _STEPS.value)
  name = "examples a second, packed over a row each"
  report({name: median(ratios)}, _JSON.value)


def _losses(config: ConfigDict, packing: int) -> Iterator[jax.Array]:
  """Returns the losses of steps for ever; compiles their shapes before."""
  _, program = make_program(config)
  make_batches = functools.partial(
    loader.make_train_loader,
    config.data.path,
    batch_size=config.batch_size,
    seed=config.seed,
    max_seq_length=config.max_seq_length,
    vocab_size=config.model.vocab_size,
    num_threads=config.data.num_threads,
    prefetch=config.data.prefetch,
    packing=packing,
    row_multiple=config.accumulation_steps
    * partitioning.num_batch_parts(program.mesh),
  )
  key = jax.random.key(config.seed)
  state, _ = sharding.init_state(program.init, key, program.mesh)
  seen = set()
  batches = make_batches()
  for _ in range(_COMPILED):
    batch = next_batch(batches, program.mesh)
    if batch["input_ids"].shape not in seen:
      seen.add(batch["input_ids"].shape)
      state, _ = program.compiled_step(state, batch, key)
  jax.block_until_ready(state)

  def losses() -> Iterator[jax.Array]:
    trained = state
    for_ever = make_batches()
    while True:
      batch = next_batch(for_ever, program.mesh)
      trained, metrics = program.compiled_step(trained, batch, key)
      yield metrics["loss"][0]

  return losses()


if __name__ == "__main__":
  command_line.run(main)
