"""Where a model looks: maps of the model's own shapes, for its own tokens."""

import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel, ConvBertTokenizer
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.inference.inspection import look_inside

TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c"]
)


@pytest.mark.parametrize("conv_type", ["span_dynamic", "none"])
def test_maps_and_kernels_are_shares(conv_type):
  config = TINY.replace(conv_type=conv_type, num_hidden_layers=2)
  model = ConvBertModel(config)
  params = random_params(model, np.zeros((1, 4), np.int32))
  inside = look_inside(Pretrained(model, params, TOKENIZER), "a bc b")
  assert inside.tokens == ["[CLS]", "a", "b", "##c", "b", "[SEP]"]
  heads = config.num_attention_heads // config.head_ratio
  if conv_type == "none":
    assert inside.kernel_LxTxHxK.shape == (2, 6, 0, 0)
  else:
    assert inside.kernel_LxTxHxK.shape == (2, 6, heads, 3)
    np.testing.assert_allclose(inside.kernel_LxTxHxK.sum(-1), 1, rtol=1e-5)
  assert inside.attention_LxHxTxT.shape == (2, heads, 6, 6)
  np.testing.assert_allclose(inside.attention_LxHxTxT.sum(-1), 1, rtol=1e-5)
