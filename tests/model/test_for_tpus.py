"""A model arranged as for a TPU computes what it computes here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel
from convbert_jax.ops import partitioning

CONFIG = ConvBertConfig(
  vocab_size=50,
  embedding_size=16,
  hidden_size=24,
  num_hidden_layers=2,
  num_attention_heads=4,
  intermediate_size=48,
  max_position_embeddings=16,
)
IDS = jnp.asarray(np.random.default_rng(0).integers(0, 50, (2, 16)))


def program_and_results(config, params):
  model = ConvBertModel(config)

  def loss(params):
    out = model.apply(
      params,
      IDS,
      jnp.ones_like(IDS).at[0, 12:].set(0),
      deterministic=False,
      rngs={"dropout": jax.random.key(3)},
    ).last_hidden_state
    return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)), out

  traced = jax.jit(jax.value_and_grad(loss, has_aux=True)).trace(params)
  (_, out), grads = traced.lower().compile()(params)
  return str(traced.jaxpr), out, grads


@pytest.mark.parametrize(
  "options",
  [
    {"remat": "dots"},
    pytest.param({"remat": "full", "num_groups": 2}, marks=pytest.mark.slow),
    pytest.param({"remat": "none"}, marks=pytest.mark.slow),
    pytest.param({"conv_type": "static"}, marks=pytest.mark.slow),
    pytest.param({"head_ratio": 1}, marks=pytest.mark.slow),
  ],
)
def test_hidden_states_and_gradients_are_the_same(monkeypatch, options):
  config = CONFIG.replace(**options)
  params = ConvBertModel(config).init(jax.random.key(0), IDS)
  here, wanted, wanted_grads = program_and_results(config, params)
  monkeypatch.setattr(partitioning, "devices", lambda: ("tpu", "TPU v5e"))
  for_tpu, found, grads = program_and_results(config, params)
  # Products of the output maps, over rows and over the batch.
  assert "[32,24] = dot_general" in here and "[2,16,24] = dot" not in here
  assert "[2,16,24] = dot_general" in for_tpu and "[32,24] = dot" not in for_tpu
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
  jax.tree.map(
    lambda found, wanted: np.testing.assert_allclose(
      found, wanted, rtol=1e-4, atol=1e-5
    ),
    grads,
    wanted_grads,
  )
