"""Layer-wise learning rates against the original's."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convbert_jax.errors import UserError
from convbert_jax.training.layer_decay import layer_rate_scale
from convbert_jax.training.optimizer import OptimizerConfig, make_optimizer

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
LAYER = "electra/encoder/layer_"


def ours(name):
  """Returns our path of one of the original's variables, and its layer."""
  if name.startswith(LAYER):
    layer, _, rest = name.removeprefix(LAYER).partition("/")
    return f"convbert/encoder/layers/{layer}/{rest}", int(layer)
  return name.replace("electra/", "convbert/"), None


def nested(flat):
  tree = {}
  for path, value in flat.items():
    *folders, leaf = path.split("/")
    place = tree
    for folder in folders:
      place = place.setdefault(folder, {})
    place[leaf] = value
  return tree


def tree_of(names, values, num_layers):
  """Returns variables as our tree; a layer's stand in a stack of zeros.

  Zeros without a gradient stay zeros, and add nothing to the global norm.
  """
  flat = {}
  for name, value in zip(names, values, strict=True):
    path, layer = ours(name)
    if layer is not None:
      stack = np.zeros((num_layers, *value.shape), np.float32)
      stack[layer] = value
      value = stack
    flat[path] = jnp.asarray(value, jnp.float32)
  return nested(flat)


def test_follows_the_original_graph_step_for_step():
  with np.load(GOLDEN / "tf_optimizer_finetune.npz") as file:
    golden = {name: file[name] for name in file}
  config = json.loads(str(golden["config"]))
  num_layers, total = config["num_layers"], config["num_train_steps"]
  names = [str(name) for name in golden["names"]]
  optimizer = make_optimizer(
    OptimizerConfig(
      learning_rate=config["learning_rate"],
      warmup_rate=config["warmup_proportion"],
      beta1=config["beta1"],
      beta2=config["beta2"],
      epsilon=config["eps"],
      weight_decay_rate=config["weight_decay_rate"],
      clip_norm=config["clip"],
      layer_decay=config["layerwise_lr_decay"],
    ),
    total,
    num_layers,
  )
  params = tree_of(names, golden["init"], num_layers)
  opt_state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  steps = zip(golden["grads"], golden["trajectory"], strict=True)
  # That run read the step counter after its increment.
  for step, (grads, trajectory) in enumerate(steps, 1):
    updates, opt_state = update(
      tree_of(names, grads, num_layers),
      opt_state,
      params,
      step=jnp.int32(step),
    )
    params = optax.apply_updates(params, updates)
    wanted = tree_of(names, trajectory, num_layers)
    jax.tree.map(
      lambda got, value: np.testing.assert_allclose(
        got, value, rtol=2e-6, atol=2e-6
      ),
      params,
      wanted,
    )


def scales(exponents):
  """Returns the factors of a 12-layer model, by the original's names."""
  scale = layer_rate_scale(0.8, 12, exponents)
  params = nested(
    {
      "convbert/embeddings/word_embeddings": jnp.zeros((3, 2)),
      "convbert/embeddings_project/kernel": jnp.zeros((2, 4)),
      "convbert/encoder/layers/output/dense/kernel": jnp.zeros((12, 4, 4)),
      "classifier/kernel": jnp.zeros((4, 2)),
    }
  )
  found = jax.tree_util.tree_map_with_path(scale, params)
  layers = found["convbert"]["encoder"]["layers"]["output"]["dense"]["kernel"]
  assert layers.shape == (12, 1, 1)
  return {
    "embeddings": found["convbert"]["embeddings"]["word_embeddings"],
    "embeddings_project": found["convbert"]["embeddings_project"]["kernel"],
    "task_specific": found["classifier"]["kernel"],
    **{f"layer_{layer}": layers[layer, 0, 0] for layer in range(12)},
  }


def test_original_exponents_are_those_of_its_table():
  table = json.loads((GOLDEN / "train_semantics.json").read_text())
  wanted = table["layerwise_12_decay_0_8"]
  found = scales("original")
  assert found.keys() == wanted.keys()
  for name, value in wanted.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_conventional_exponents_leave_none_out():
  found = scales("conventional")
  np.testing.assert_allclose(found["task_specific"], 1.0)
  np.testing.assert_allclose(found["layer_11"], 0.8, rtol=1e-6)
  np.testing.assert_allclose(found["layer_0"], 0.8**12, rtol=1e-6)
  np.testing.assert_allclose(found["embeddings"], 0.8**13, rtol=1e-6)


def test_an_encoder_parameter_of_no_depth_is_refused():
  params = {"convbert": {"pooler": jnp.zeros(2)}}
  with pytest.raises(ValueError, match="convbert/pooler"):
    jax.tree_util.tree_map_with_path(layer_rate_scale(0.8, 2), params)


@pytest.mark.parametrize(
  ("decay", "exponents", "message"),
  [
    (0.0, "original", "layer_decay=0.0 must be above 0"),
    (1.5, "original", "layer_decay=1.5 must be above 0 and at most 1"),
    (0.8, "convential", "did you mean 'conventional'"),
  ],
)
def test_wrong_settings_are_one_line(decay, exponents, message):
  with pytest.raises(UserError, match=message):
    layer_rate_scale(decay, 2, exponents)


def test_a_decay_of_one_scales_nothing():
  assert layer_rate_scale(1.0, 2) is None
