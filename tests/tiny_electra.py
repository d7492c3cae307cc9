"""A pre-training small enough for any test, and a batch for it."""

import jax.numpy as jnp
import numpy as np
from tiny_convbert import TINY, draw_like, shapes_of

from convbert_jax.model.generator import generator_config
from convbert_jax.objective import kinds, settings

SPECIAL = {"pad": 0, "cls": 2, "sep": 3, "mask": 4}


def make_electra(config=TINY, **fields):
  objective = settings.Objective(**fields)
  generator = config
  if not objective.tie_generator:
    generator = generator_config(
      config,
      size_fraction=0.5,
      layers_fraction=1.0,
      tie_embeddings=objective.tie_embeddings,
    )
  return kinds.KINDS[objective.kind](config, generator, objective)


def unboxed_params(electra):
  """Returns parameters about as large as those that a run starts with."""
  return draw_like(shapes_of(electra.init_params), spread=0.02)


def make_batch(rows=8, length=32, seed=0):
  rng = np.random.default_rng(seed)
  ids = rng.integers(5, 50, (rows, length)).astype(np.int32)
  lengths = rng.integers(5, length + 1, rows)
  lengths[0] = length
  mask = (np.arange(length)[None] < lengths[:, None]).astype(np.int32)
  ids[:, 0] = SPECIAL["cls"]
  ids[np.arange(rows), lengths - 1] = SPECIAL["sep"]
  return {
    "input_ids": jnp.asarray(ids * mask),
    "attention_mask": jnp.asarray(mask),
    "token_type_ids": jnp.zeros_like(ids),
  }
