"""The vector that stands for a choice, by every field of the config."""

import jax
import numpy as np
import pytest
from tiny_convbert import TINY, draw_like, shapes_of

from convbert_jax.errors import UserError
from convbert_jax.model.choice_head import SequenceSummary

HIDDEN = np.random.default_rng(0).normal(size=(3, 5, 16)).astype(np.float32)


def summary(fields, key=None):
  """Returns parameters and result of a summary."""
  module = SequenceSummary(TINY.replace(**fields))
  params = draw_like(
    shapes_of(
      lambda key: (
        module
        .init(key, HIDDEN, deterministic=True)
        .get("params", {})
      )
    )
  )  # fmt: skip
  found = module.apply(
    {"params": params},
    HIDDEN,
    deterministic=key is None,
    rngs={} if key is None else {"dropout": key},
  )
  return params, found


def test_which_vector_it_is():
  for kind, expected in {
    "last": HIDDEN[:, -1],
    "cls_index": HIDDEN[:, -1],
    "first": HIDDEN[:, 0],
    "mean": HIDDEN.mean(1),
  }.items():
    params, found = summary({"summary_type": kind})
    assert not params
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_map_and_activation():
  fields = {"summary_use_proj": True, "summary_activation": "tanh"}
  params, found = summary(fields)
  linear = params["summary"]
  expected = np.tanh(HIDDEN[:, -1] @ linear["kernel"] + linear["bias"])
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  fields["summary_proj_to_labels"] = True
  with pytest.raises(UserError, match="takes hidden_size=16; leave it off"):
    summary(fields)
  summary({**fields, "num_labels": 16})


@pytest.mark.parametrize("place", ["first", "last"])
def test_dropouts(place):
  fields = {f"summary_{place}_dropout": 0.5, "summary_activation": "tanh"}
  _, plain = summary(fields)
  _, dropped = summary(fields, jax.random.key(0))
  is_zero = np.asarray(dropped) == 0
  assert 0.2 < is_zero.mean() < 0.8
  scaled = HIDDEN[:, -1] * 2 if place == "first" else np.arctanh(plain)
  expected = np.tanh(scaled) * (1 if place == "first" else 2)
  np.testing.assert_allclose(
    dropped[~is_zero], expected[~is_zero], rtol=1e-4, atol=1e-5
  )
