"""Where the heads of a model look, in numbers over a text.

Every number is an average over the tokens of the text. [CLS], [SEP] and pads
are no such tokens: they neither ask nor count as a distance, and the share of
attention that [CLS] and [SEP] take is a number of its own.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from convbert_jax.data import batching
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.segments import check_alike

# Of one batch, or summed over all; arrays and trees of arrays.
Totals = dict[str, Any]

MAX_LENGTH = 128


@dataclasses.dataclass(frozen=True)
class HeadStatistics:
  """What the attention heads do on average, `L` layers by `H` heads.

  The same of a head that looks at all real tokens alike, at the same lengths,
  stands in `uniform`, by the names of the arrays.

  Attributes:
    num_texts: texts read.
    num_cut: of them, those cut at `max_length`.
    num_tokens: tokens of text in them, those cut off not counted.
    max_length: of a text in tokens, [CLS] and [SEP] included.
    reach: neighbours on each side within a convolution's window, (K - 1) / 2.
    distance_LxH: tokens between a token and what it reads, weighted by the
      attention between them.
    local_share_LxH: of the attention to the text, that within the reach.
    special_share_LxH: of all attention, that to [CLS] and [SEP].
    entropy_LxH: of a token's attention, specials included, in nats.
    uniform: the values of uniform attention.
    kernel_LxHxK: mean weights of the convolution's window, over its own `H`
      heads; K is 0 for a model without convolution.
    kernel_spread_LxHxK: their standard deviation from token to token.
  """

  num_texts: int
  num_cut: int
  num_tokens: int
  max_length: int
  reach: int
  distance_LxH: np.ndarray
  local_share_LxH: np.ndarray
  special_share_LxH: np.ndarray
  entropy_LxH: np.ndarray
  uniform: dict[str, float]
  kernel_LxHxK: np.ndarray
  kernel_spread_LxHxK: np.ndarray

  @property
  def kernel_width(self) -> int:
    """Tokens in the convolution's window (`K`)."""
    return 2 * self.reach + 1

  @property
  def has_conv(self) -> bool:
    """Whether there are kernels."""
    return self.kernel_LxHxK.size > 0

  def to_json(self) -> dict[str, Any]:
    """Returns all of it as plain values; layers first, then heads."""
    return {
      name.partition("_Lx")[0]: value.tolist()
      if isinstance(value, np.ndarray)
      else value
      for name, value in vars(self).items()
    }


def measure(
  source: Pretrained,
  texts: Iterable[str],
  *,
  num_tokens: int,
  batch_size: int = 8,
  max_length: int | None = None,
  progress: bool = False,
) -> HeadStatistics:
  """Reads texts and averages what the heads do.

  Args:
    source: an encoder with its tokenizer, as `Pretrained.encoder` is. Pads are
      masked out of its convolutions, however it was trained.
    texts: each a row of its own; one without a token is passed over.
    num_tokens: tokens of text to read; the last text is read to its end.
    batch_size: rows in a batch.
    max_length: length that rows are padded to, and cut at, special tokens
      included; None for `MAX_LENGTH`, or the model's longest if that is less.
    progress: whether to draw a progress bar on stderr.

  Raises:
    UserError: if there is no text, the length is none of the model's, or the
      model has no vocabulary, no attention maps or unlike layers.
  """
  check_alike(source.model.config, "statistics are made")
  config = source.model.config.replace(mask_padding_in_conv=True)
  model = source.model.clone(config=config)
  tokenizer = source.needed_tokenizer()
  max_length = _checked_length(source, max_length)
  params = jax.device_put(nn.unbox(source.params))
  special_ids = np.array(_special_ids(tokenizer), np.int32)
  counts = {"num_texts": 0, "num_cut": 0, "num_tokens": 0}
  sums = functools.partial(_sums, model, params, special_ids)
  totals: Totals = {}
  with tqdm.tqdm(
    total=num_tokens, unit="token", unit_scale=True, disable=not progress
  ) as bar:
    rows = _counted_rows(tokenizer, texts, max_length, num_tokens, counts, bar)
    for batch in _batches(rows, batch_size, max_length, special_ids[0]):
      found = _in_float64(jax.device_get(sums(batch)))
      totals = jax.tree.map(np.add, totals, found) if totals else found
  # A [SEP] that is written in the text is not text either.
  if not totals or not totals["tokens"]:
    raise UserError("no token to look at: the text is empty")
  counts["num_tokens"] = int(totals["tokens"])
  return _averages(
    totals, {**counts, "max_length": max_length, "reach": _reach(config)}
  )


def _checked_length(source: Pretrained, max_length: int | None) -> int:
  longest = min(
    source.model.config.max_position_embeddings,
    source.tokenizer.model_max_length,
  )
  length = min(MAX_LENGTH, longest) if max_length is None else max_length
  if not 3 <= length <= longest:
    raise UserError(
      f"max_length={length}: give 3 to {longest}, the model's longest"
    )
  return length


def _reach(config: ConvBertConfig) -> int:
  """Returns the neighbours on each side that a convolution sees."""
  return config.conv_kernel_size // 2


def _special_ids(tokenizer: ConvBertTokenizer) -> list[int]:
  """Returns the ids of [CLS] and [SEP], in this order."""
  return [tokenizer.cls_token_id, tokenizer.sep_token_id]


def _counted_rows(
  tokenizer: ConvBertTokenizer,
  texts: Iterable[str],
  max_length: int,
  num_tokens: int,
  counts: dict[str, int],
  bar: tqdm.tqdm,
) -> Iterator[batching.Row]:
  """Yields a row for each text until `counts` has enough tokens."""
  for text in texts:
    ids = tokenizer.encode(text, truncation=True, max_length=max_length + 1)
    room = max_length - 2
    counts["num_cut"] += len(ids) > max_length
    inner = ids[1:-1][:room]
    if not len(inner):
      continue
    counts["num_texts"] += 1
    counts["num_tokens"] += len(inner)
    bar.update(len(inner))
    row = [ids[0], *inner, ids[-1]]
    yield batching.make_row(row, [0] * len(row))
    if counts["num_tokens"] >= num_tokens:
      return


def _batches(
  rows: Iterator[batching.Row], batch_size: int, length: int, filler_id: int
) -> Iterator[batching.Batch]:
  """Yields batches of one shape; a special token alone fills the last one."""
  filler = batching.make_row([filler_id], [0])
  while chosen := list(itertools.islice(rows, batch_size)):
    chosen += (batch_size - len(chosen)) * [filler]
    yield batching.stack_rows(chosen, length, batching.PADDING)


@functools.partial(jax.jit, static_argnums=0)
def _sums(
  model: nn.Module, params: Any, special_ids: jax.Array, batch: batching.Batch
) -> Totals:
  """Returns totals over a batch; see `_attention_totals`, `_kernel_totals`."""
  has_kernels = model.config.has_conv_kernels
  output = model.apply(
    {"params": params},
    **batch,
    output_attentions=True,
    output_conv_kernels=has_kernels,
  )
  if not output.attentions:
    raise UserError("the model has no attention maps to look at")
  real_BxT = batch["attention_mask"] == 1
  text_BxT = real_BxT & ~jnp.isin(batch["input_ids"], special_ids)
  read = functools.partial(
    _attention_totals,
    real_BxT=real_BxT,
    text_BxT=text_BxT,
    reach=_reach(model.config),
  )
  lengths_B = jnp.sum(real_BxT, axis=1)
  uniform_Bx1x1xT = (real_BxT / lengths_B[:, None])[:, None, None, :]
  shape = (len(real_BxT), 1, real_BxT.shape[1], real_BxT.shape[1])
  totals = {
    "tokens": jnp.sum(text_BxT),
    "heads": _stacked(read(layer) for layer in output.attentions),
    "uniform": read(jnp.broadcast_to(uniform_Bx1x1xT, shape)),
  }
  if has_kernels:
    totals["kernels"] = _stacked(
      _kernel_totals(layer, text_BxT) for layer in output.conv_kernels
    )
  return totals


def _stacked(layers: Iterable[Totals]) -> Totals:
  return jax.tree.map(lambda *arrays: jnp.stack(arrays), *layers)


def _attention_totals(
  attention_BxHxTxT: jax.Array,
  real_BxT: jax.Array,
  text_BxT: jax.Array,
  reach: int,
) -> Totals:
  """Returns the totals over tokens of the text, [H] each.

  The tokens that ask are those of the text. `to_text` is their attention to
  text, `distance` and `local` are that attention times the distance, and
  where it is within the reach; `to_real` and `entropy` are over all real
  tokens.
  """
  attention_BxHxTxT = attention_BxHxTxT.astype(jnp.float32)
  asked_BxHxTxT = attention_BxHxTxT * text_BxT[:, None, :, None]
  to_real_BxHxTxT = asked_BxHxTxT * real_BxT[:, None, None, :]
  to_text_BxHxTxT = asked_BxHxTxT * text_BxT[:, None, None, :]
  places_T = jnp.arange(text_BxT.shape[1])
  distance_TxT = jnp.abs(places_T[:, None] - places_T[None, :])

  def weighted(weight_TxT: jax.Array) -> jax.Array:
    return jnp.einsum("bhij,ij->h", to_text_BxHxTxT, weight_TxT)

  return {
    "to_text": jnp.sum(to_text_BxHxTxT, axis=(0, 2, 3)),
    "to_real": jnp.sum(to_real_BxHxTxT, axis=(0, 2, 3)),
    "distance": weighted(distance_TxT.astype(jnp.float32)),
    "local": weighted((distance_TxT <= reach).astype(jnp.float32)),
    "entropy": jnp.sum(jax.scipy.special.entr(to_real_BxHxTxT), axis=(0, 2, 3)),
  }


def _kernel_totals(kernel_BxTxHxK: jax.Array, text_BxT: jax.Array) -> Totals:
  """Returns the totals of the weights, and of what is off their mean squared.

  [H, K] each. A sum of the squares themselves would lose, in float32, how
  little a kernel varies.
  """
  kernel_BxTxHxK = kernel_BxTxHxK.astype(jnp.float32)
  text_BxT = text_BxT.astype(jnp.float32)
  total = functools.partial(jnp.einsum, "bthk,bt->hk")
  sum_HxK = total(kernel_BxTxHxK, text_BxT)
  mean_HxK = sum_HxK / jnp.maximum(jnp.sum(text_BxT), 1)
  off_BxTxHxK = kernel_BxTxHxK - mean_HxK[None, None]
  return {"sum": sum_HxK, "off_squared": total(off_BxTxHxK**2, text_BxT)}


def _in_float64(totals: Totals) -> Totals:
  """Returns a batch's totals such that they can be added to others'.

  In float64, since the totals outgrow float32 long before a text ends. The
  squares of the kernels' weights are about zero, not about a batch's mean.
  """
  totals = jax.tree.map(lambda array: array.astype(np.float64), totals)
  if "kernels" in totals:
    sums = totals["kernels"]["sum"]
    about_zero = sums**2 / max(totals["tokens"], 1)
    totals["kernels"]["squares"] = (
      totals["kernels"].pop("off_squared") + about_zero
    )
  return totals


def _averages(totals: Totals, counts: dict[str, int]) -> HeadStatistics:
  tokens = totals["tokens"]
  heads = _head_averages(totals["heads"], tokens)
  none = np.zeros((*heads["distance"].shape, 0))
  mean_LxHxK = spread_LxHxK = none
  if "kernels" in totals:
    mean_LxHxK = totals["kernels"]["sum"] / tokens
    variance_LxHxK = totals["kernels"]["squares"] / tokens - mean_LxHxK**2
    # Rounding may leave less than nothing of a kernel that is always the same.
    spread_LxHxK = np.sqrt(np.maximum(variance_LxHxK, 0))
  uniform = _head_averages(totals["uniform"], tokens)
  return HeadStatistics(
    **counts,
    **{f"{name}_LxH": value for name, value in heads.items()},
    uniform={name: float(value[0]) for name, value in uniform.items()},
    kernel_LxHxK=mean_LxHxK,
    kernel_spread_LxHxK=spread_LxHxK,
  )


def _head_averages(totals: Totals, tokens: float) -> dict[str, np.ndarray]:
  """Returns the fields of `HeadStatistics` by name.

  A head that looks at special tokens alone has no distance: NaN.
  """
  with np.errstate(invalid="ignore"):
    return {
      "distance": totals["distance"] / totals["to_text"],
      "local_share": totals["local"] / totals["to_text"],
      "special_share": 1 - totals["to_text"] / totals["to_real"],
      "entropy": totals["entropy"] / tokens,
    }
