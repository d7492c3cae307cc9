"""Where heads look: streamed and padded as computed plainly, text by text."""

import functools

import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel, ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.inference import attention_statistics
from convbert_jax.inference.attention_statistics import measure
from convbert_jax.inference.inspection import look_inside

TOKENIZER = ConvBertTokenizer(
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c"]
)
# Of few lengths, since each is compiled for.
TEXTS = ["a bc b", "b", "a a bc bc a b b a a", "x b bc", "a"]
ARRAYS = (
  "distance_LxH",
  "local_share_LxH",
  "special_share_LxH",
  "entropy_LxH",
  "kernel_LxHxK",
  "kernel_spread_LxHxK",
)


def make(**changes):
  config = TINY.replace(num_hidden_layers=2, **changes)
  model = ConvBertModel(config)
  params = random_params(model, np.zeros((1, 4), np.int32), spread=0.6)
  return Pretrained(model, params, TOKENIZER)


@functools.cache
def plainly(conv_type):
  """The averages by loops over every pair of tokens of every text alone."""
  source = make(conv_type=conv_type)
  found = [look_inside(source, text) for text in TEXTS]
  num_layers, num_heads = found[0].attention_LxHxTxT.shape[:2]
  reach = source.model.config.conv_kernel_size // 2
  averages = {name: np.zeros((num_layers, num_heads)) for name in ARRAYS[:4]}
  for layer in range(num_layers):
    for head in range(num_heads):
      to_text, to_all, distance, local, entropies = 0, 0, 0, 0, []
      for inside in found:
        last = len(inside.tokens) - 1
        for i in range(1, last):
          row = inside.attention_LxHxTxT[layer, head, i].astype(np.float64)
          entropies.append(-(row * np.log(row)).sum())
          to_all += row.sum()
          for j in range(1, last):
            to_text += row[j]
            distance += row[j] * abs(i - j)
            local += row[j] * (abs(i - j) <= reach)
      place = layer, head
      averages["distance_LxH"][place] = distance / to_text
      averages["local_share_LxH"][place] = local / to_text
      averages["special_share_LxH"][place] = 1 - to_text / to_all
      averages["entropy_LxH"][place] = np.mean(entropies)
  kernels = np.concatenate([i.kernel_LxTxHxK[:, 1:-1] for i in found], axis=1)
  averages["kernel_LxHxK"] = kernels.mean(axis=1)
  averages["kernel_spread_LxHxK"] = kernels.std(axis=1)
  return averages


@pytest.mark.parametrize(
  "conv_type, batch_size, max_length",
  [
    ("span_dynamic", 2, 16),
    pytest.param("span_dynamic", 8, 40, marks=pytest.mark.slow),
    pytest.param("none", 3, 16, marks=pytest.mark.slow),
  ],
)
def test_averages_are_those_of_every_text_alone(
  conv_type, batch_size, max_length
):
  found = measure(
    make(conv_type=conv_type),
    TEXTS,
    num_tokens=1000,
    batch_size=batch_size,
    max_length=max_length,
  )
  assert (found.num_texts, found.num_tokens, found.num_cut) == (5, 21, 0)
  assert found.has_conv == (conv_type != "none")
  for name, expected in plainly(conv_type).items():
    if name.startswith("kernel") and not found.has_conv:
      continue
    np.testing.assert_allclose(
      getattr(found, name), expected, rtol=2e-4, atol=1e-5, err_msg=name
    )


def test_uniform_attention_is_what_the_lengths_give():
  found = measure(make(), TEXTS, num_tokens=1000)
  lengths = [len(TOKENIZER.encode(text)) - 2 for text in TEXTS]
  tables = [np.abs(np.subtract.outer(range(n), range(n))) for n in lengths]
  shares = [np.full(table.shape, 1 / (len(table) + 2)) for table in tables]
  to_text = sum(share.sum() for share in shares)
  expected = {
    "distance": sum((s * t).sum() for s, t in zip(shares, tables)) / to_text,
    "local_share": sum(s[t <= 1].sum() for s, t in zip(shares, tables))
    / to_text,
    "special_share": 1 - to_text / sum(lengths),
    "entropy": sum(n * np.log(n + 2) for n in lengths) / sum(lengths),
  }
  assert found.uniform == pytest.approx(expected, rel=1e-5)


def test_one_program_and_no_more_tokens_than_asked_for():
  compiled = attention_statistics._sums._cache_size()
  taken = []

  def texts():
    for text in TEXTS * 100:
      taken.append(text)
      yield text

  found = measure(make(), texts(), num_tokens=50, batch_size=4, max_length=19)
  # Two rounds of 21 tokens, and on to the text that the fiftieth is in.
  assert (found.num_texts, found.num_tokens, len(taken)) == (13, 58, 13)
  assert attention_statistics._sums._cache_size() == compiled + 1


def test_long_texts_are_cut_and_counted():
  source = make()
  found = measure(source, ["a b a b a b", "a b a"], num_tokens=9, max_length=5)
  assert (found.num_texts, found.num_tokens, found.num_cut) == (2, 6, 1)
  expected = measure(source, ["a b a", "a b a"], num_tokens=9)
  for name in ARRAYS:
    np.testing.assert_allclose(
      getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-6
    )
  assert found.to_json()["distance"] == found.distance_LxH.tolist()
  assert found.to_json()["max_length"] == 5


class Blind(ConvBertModel):
  def __call__(self, *arguments, **options):
    output = super().__call__(*arguments, **options)
    return output.replace(attentions=None)


@pytest.mark.parametrize(
  "texts, options, words",
  [
    ([], {}, "no token to look at"),
    (["", "  ", "[SEP]"], {}, "no token to look at"),
    (["a"], {"max_length": 65}, "max_length=65: give 3 to 64"),
    (["a"], {"max_length": 2}, "max_length=2: give 3 to 64"),
  ],
)
def test_what_cannot_be_measured(texts, options, words):
  with pytest.raises(UserError, match=words):
    measure(make(), texts, num_tokens=10, **options)


def test_models_that_cannot_be_measured():
  source = make()
  blind = Pretrained(Blind(source.model.config), source.params, TOKENIZER)
  with pytest.raises(UserError, match="no attention maps"):
    measure(blind, ["a"], num_tokens=10)
  with pytest.raises(UserError, match="no vocabulary beside it"):
    measure(Pretrained(source.model, source.params), ["a"], num_tokens=10)
