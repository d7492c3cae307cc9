"""Reads the golden files: reference weights and gradients in our own tree."""

import json
import pathlib
import re

import flax.traverse_util
import numpy as np
import pytest

from convbert_jax.model.config import ConvBertConfig

GOLDEN = pathlib.Path(__file__).parent / "golden"
GRADIENT_TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}

# Files of encoders: the original's graph, its re-derivation in float64, and
# transformers' models.
TF1_GRAPH = [
  "tf_encoder_ratio2",
  "tf_encoder_ratio4_groups2",
  "tf_encoder_ratio8_onehead",
]
TF1_FLOAT64 = [
  "tf1_heads1_r2_k9",
  "tf1_noconv_r1",
  "tf1_r1_k9_g1",
  "tf1_r4_k3_g2_proj",
]
HF = [
  "hf_headslt_r4_k3",
  "hf_r1_k9_g1",
  "hf_r2_k3_g2",
  "hf_r2_k9_g1_proj",
  "hf_r4_k3_g2_proj",
]
# Those with every feature between them; the others are compared by
# `make test-slow`.
_BY_DEFAULT = (
  "tf_encoder_ratio4_groups2",
  "tf1_noconv_r1",
  "tf1_r4_k3_g2_proj",
  "hf_headslt_r4_k3",
  "hf_r4_k3_g2_proj",
)

# (pattern of the reference's name, our path, axes of the reference's array in
# our order, or None to take it as it is)
_COMMON = [
  (r"embeddings/(word|position|token_type)_embeddings",
   r"embeddings/\1_embeddings", None),
  (r"attention/self/(query|key|value)/", r"attention/\1/", None),
  (r"attention/output/", r"attention_output/", None),
]  # fmt: skip
_TF1 = [
  ("LayerNorm/gamma", "LayerNorm/scale", None),
  ("LayerNorm/beta", "LayerNorm/bias", None),
  ("attention/self/conv_attn_kernel/", "attention/conv_kernel/", None),
  ("attention/self/conv_attn_point/", "attention/conv_value/", None),
  ("attention/self/conv_attn_key/depthwise_kernel",
   "attention/conv_key/depthwise_kernel", "kmo->km"),
  ("attention/self/conv_attn_key/pointwise_kernel",
   "attention/conv_key/pointwise_kernel", "oma->ma"),
  ("attention/self/conv_attn_key/bias", "attention/conv_key/bias", None),
  (r"intermediate/(g_)?dense/", "intermediate/", None),
  (r"layer_(\d+)/output/g_dense/", r"layer_\1/output/dense/", None),
  (r"generator_predictions/output_bias", "output_bias", None),
]  # fmt: skip
_HF = [
  (r"LayerNorm/weight", "LayerNorm/scale", None),
  (r"(embeddings/\w+)/weight$", r"\1", None),
  (r"encoder/layer/(\d+)/", r"encoder/layer_\1/", None),
  ("attention/self/conv_kernel_layer/", "attention/conv_kernel/", None),
  ("attention/self/conv_out_layer/", "attention/conv_value/", None),
  ("attention/self/key_conv_attn_layer/depthwise/weight",
   "attention/conv_key/depthwise_kernel", "mok->km"),
  ("attention/self/key_conv_attn_layer/pointwise/weight",
   "attention/conv_key/pointwise_kernel", "amo->ma"),
  ("attention/self/key_conv_attn_layer/bias", "attention/conv_key/bias",
   "ao->a"),
  ("generator_lm_head/bias", "output_bias", None),
  ("intermediate/dense/", "intermediate/", None),
  ("/weight$", "/kernel", "transpose"),
]  # fmt: skip


def load(name: str) -> dict[str, np.ndarray]:
  with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
    return dict(archive)


def each(names):
  """Parametrizes a test by golden files, most of them marked slow."""
  return pytest.mark.parametrize(
    "name",
    [
      name
      if name in _BY_DEFAULT
      else pytest.param(name, marks=pytest.mark.slow)
      for name in names
    ],
  )


def select(arrays, prefix):
  """The arrays whose name starts with `prefix`, without it."""
  return {
    name.removeprefix(prefix): array
    for name, array in arrays.items()
    if name.startswith(prefix)
  }


def tree(arrays, rules, dtype):
  """Nested dict in our layout, layers stacked, from flat reference names."""
  flat, stacks = {}, {}
  for name, array in arrays.items():
    path, array = _translate(name.replace(".", "/"), array, rules)
    array = array.astype(dtype)
    layer = re.search(r"encoder/layer_(\d+)/", path)
    if layer:
      path = path.replace(layer.group(0), "encoder/layers/")
      stacks.setdefault(path, {})[int(layer.group(1))] = array
    else:
      flat[path] = array
  for path, by_layer in stacks.items():
    flat[path] = np.stack([by_layer[i] for i in sorted(by_layer)])
  return flax.traverse_util.unflatten_dict(flat, sep="/")


def _translate(path, array, rules):
  for pattern, replacement, axes in [*_COMMON, *rules]:
    path, hits = re.subn(pattern, replacement, path)
    if hits and axes == "transpose":
      array = array.T if array.ndim == 2 else array
    elif hits and axes:
      array = np.einsum(axes, array)
  return path, array


def tf1_tree(arrays, dtype="float32"):
  return tree(arrays, _TF1, dtype)


def hf_tree(arrays, dtype="float32"):
  return tree(arrays, _HF, dtype)


def tf1_config(archive, which="config", **changes) -> ConvBertConfig:
  """Config of the golden files of the original and of its re-derivation."""
  if "meta" in archive:
    given = json.loads(str(archive["meta"]))[which]
    names = {
      "heads": "num_attention_heads",
      "ratio": "head_ratio",
      "kernel": "conv_kernel_size",
      "groups": "num_groups",
      "emb": "embedding_size",
      "hidden": "hidden_size",
      "conv": "conv_type",
      "inter": "intermediate_size",
      "layers": "num_hidden_layers",
      "vocab": "vocab_size",
      "maxpos": "max_position_embeddings",
    }
    given = {names[name]: value for name, value in given.items()}
  else:
    given = json.loads(str(archive["config"]))
    given["num_groups"] = given.pop("linear_groups")
    unused = ("generator", "hparams", "disc_weight", "gen_weight")
    for name in (*unused, "mask_prob", "max_predictions_per_seq"):
      given.pop(name, None)
  types = {"sdconv": "span_dynamic", "noconv": "none"}
  given["conv_type"] = types[given.get("conv_type", "sdconv")]
  return ConvBertConfig(**{**given, **changes})


def hf_inputs(golden):
  """Config and (ids, mask, types) of a golden file of transformers."""
  meta = json.loads(str(golden["meta"]))
  fields = {k: v for k, v in meta["config"].items() if k != "pad_token_id"}
  inputs = [
    golden[f"in/{key}"]
    for key in ("input_ids", "attention_mask", "token_type_ids")
  ]
  return ConvBertConfig(**fields, head_size_rule="hf"), inputs
