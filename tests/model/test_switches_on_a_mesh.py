"""Switches of the model: eight devices compute what one computes."""

from functools import partial

import jax
import numpy as np
import pytest
from tiny_convbert import TINY, draw_like, shapes_of
from tiny_electra import make_batch

from convbert_jax import ConvBertForPreTraining
from convbert_jax.ops import partitioning
from convbert_jax.training import sharding

BATCH = make_batch(rows=8, length=16)
PADDING = np.asarray(BATCH["attention_mask"])
LABELS = np.random.default_rng(1).integers(0, 2, (8, 16))


def loss_and_gradient(config, mask, mesh=None):
  """Returns both, computed with parameters that lie on the mesh."""
  model = ConvBertForPreTraining(config)

  def init(key):
    return model.init(key, BATCH["input_ids"])

  params = draw_like(shapes_of(init), spread=0.2)

  def loss(params, ids, mask, labels):
    return model.apply(params, ids, mask, labels=labels).loss

  step = jax.value_and_grad(loss)
  batch = (BATCH["input_ids"], mask, LABELS)
  if mesh is not None:
    step = partitioning.on_mesh(step, mesh)
    places = sharding.abstract(init, jax.random.key(0), mesh)
    params = jax.device_put(params, sharding.shardings_of(places))
    batch = jax.device_put(batch, sharding.batch_sharding(mesh))
  return jax.device_get(jax.jit(step)(params, *batch))


@pytest.mark.parametrize(
  ("fields", "mask"),
  [
    ({"position_type": "rotary", "conv_query": "own"}, PADDING),
    pytest.param({"conv_layers": (1,)}, PADDING, marks=pytest.mark.slow),
    ({"conv_type": "none"}, PADDING[:, None] * np.tril(np.ones((16, 16), int))),
  ],
  ids=["rotary, own query", "some layers", "causal"],
)
def test_all_axes(fields, mask):
  check_all_axes(TINY.replace(num_hidden_layers=2, **fields), mask)


@pytest.mark.slow
def test_all_axes_as_arranged_for_tpus(monkeypatch):
  config = TINY.replace(num_hidden_layers=2, remat="dots")
  for_tpus = partial(
    monkeypatch.setattr, partitioning, "devices", lambda: ("tpu", "TPU v5e")
  )
  check_all_axes(config, PADDING, prepare=for_tpus)


def check_all_axes(config, mask, prepare=lambda: None):
  """Compares a mesh, after some preparation, with a device before it."""
  one_loss, one_grads = loss_and_gradient(config, mask)
  prepare()
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  loss, grads = loss_and_gradient(config, mask, mesh)
  np.testing.assert_allclose(loss, one_loss, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
    grads,
    one_grads,
  )
