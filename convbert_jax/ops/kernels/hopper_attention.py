"""Attention in one pass for NVIDIA's Hopper GPUs (H100, H200).

The logits of a head never leave the chip: a warpgroup holds those of 64 queries
and a block of keys, or of 64 keys and a block of queries (Dao et al. 2022). The
reference, which it must equal, is `ops.attention.dot_product_attention`; masks
of dropout are the same bit for bit.

Heads are read where the projection has written them: as the first three parts,
queries, keys and values, of one array [B, T, S, H, D].
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as gpu

from convbert_jax.ops import dropout, partitioning
from convbert_jax.ops.attention import MASKED_LOGIT
from convbert_jax.ops.kernels import cost

_QUERY, _KEY, _VALUE = range(3)
# What is known of keys.
_BIAS, _TEXT = range(2)
# Among the heads that the layer has in the end.
_ATTENDED, _BESIDE = range(2)
_NUM_HEADS_READ = 3
# Rows of a warpgroup's matrix products, as the hardware has them, and the
# columns at a time; their registers are what there is.
_ROWS = 64
_FORWARD_COLUMNS, _BACKWARD_COLUMNS = 128, 64
_WARPGROUPS = 2
# Rows of a copy; the hardware takes 256.
_COPIED = 128
# Shared memory has to hold two arrays of a head.
_MAX_LENGTH = 512
_HEAD_SIZES = (32, 64)
_LOWEST = -1e30


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a kernel is compiled for.

  Attributes:
    rate: share of the probabilities set to zero.
    num_heads: of the whole array, of which there may be a part.
    interpret: emulates the GPU, with plain products; for tests.
  """

  rate: float
  num_heads: int
  interpret: Any = None


def fits(length: int, head_size: int, dtype: Any) -> bool:
  """Says whether heads of this size and type can be computed here.

  Args:
    length: tokens of a sequence, padding included.
    head_size: width of a head.
    dtype: of the heads.
  """
  return (
    length % max(_ROWS * _WARPGROUPS, _COPIED) == 0
    and length <= _MAX_LENGTH
    and head_size in _HEAD_SIZES
    and jnp.dtype(dtype) == jnp.bfloat16
  )


def attention(
  parts_BxTxSxHxD: jax.Array,
  bias_BxT: jax.Array,
  beside_BxTxHxD: jax.Array | None = None,
  *,
  segment_ids_BxT: jax.Array | None = None,
  dropout_rate: float = 0.0,
  dropout_seeds: jax.Array | None = None,
  interpret: Any = None,
) -> jax.Array:
  """Averages values by similarity to each query, on every mesh.

  Args:
    parts_BxTxSxHxD: queries, unscaled, keys, values, and what else there is;
      see `fits`.
    bias_BxT: added to the logits of each key, float32.
    beside_BxTxHxD: other heads, to put beside these; or None.
    segment_ids_BxT: the text of each position, of which alone it reads; one
      text if None.
    dropout_rate: share of the probabilities set to zero.
    dropout_seeds: [2], needed if `dropout_rate` is not zero.
    interpret: emulates the GPU; for tests.

  Returns:
    [B, T, S, H, D]: these heads, and the others if there are any.
  """
  settings = Settings(dropout_rate, parts_BxTxSxHxD.shape[3], interpret)
  if dropout_seeds is None:
    dropout_seeds = jnp.zeros(2, jnp.uint32)

  keys = [bias_BxT]
  if segment_ids_BxT is not None:
    keys.append(segment_ids_BxT.astype(jnp.float32))
  heads = ("batch", None, "heads", None)
  given = [] if beside_BxTxHxD is None else [beside_BxTxHxD]

  def of_part(
    parts: jax.Array,
    keys: jax.Array,
    seeds: jax.Array,
    *rest: Any,
  ) -> jax.Array:
    *beside, begins = rest
    begin = jnp.stack([begins["batch"], begins["heads"]]).astype(jnp.uint32)
    words = jnp.concatenate([seeds, begin])
    return attend(settings, parts, keys, words, *beside)

  return partitioning.mapped(
    of_part,
    [
      ("batch", None, None, "heads", None),
      ("batch", None, None),
      (None,),
      *[heads for _ in given],
    ],
    ("batch", None, None, "heads", None),
  )(parts_BxTxSxHxD, jnp.stack(keys, axis=1), dropout_seeds, *given)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
  settings: Settings,
  parts_BxTxSxHxD: jax.Array,
  keys_BxRxT: jax.Array,
  words: jax.Array,
  beside_BxTxHxD: jax.Array | None = None,
) -> jax.Array:
  """Averages values by similarity to each query.

  Args:
    settings: what does not change.
    parts_BxTxSxHxD: queries, unscaled, keys, values, and what else there is;
      bfloat16.
    keys_BxRxT: added to the logits of each key, float32; and, if there are
      two rows, its text.
    words: uint32 [4], the seeds of dropout, and the row and head of the whole
      array that `parts` begins with.
    beside_BxTxHxD: other heads, or None.

  Returns:
    As `attention`.
  """
  return _attend_forward(
    settings, parts_BxTxSxHxD, keys_BxRxT, words, beside_BxTxHxD
  )[0]


_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def _attend_forward(
  settings: Settings,
  parts_BxTxSxHxD: jax.Array,
  keys_BxRxT: jax.Array,
  words: jax.Array,
  beside_BxTxHxD: jax.Array | None,
) -> tuple[jax.Array, _Saved]:
  num_stacked = 1 if beside_BxTxHxD is None else 2
  heads, normaliser = _forward(
    settings, parts_BxTxSxHxD, keys_BxRxT, words, num_stacked
  )
  if beside_BxTxHxD is not None:
    # In place: the kernel has left room.
    heads = heads.at[:, :, _BESIDE].set(beside_BxTxHxD)
  # The backward pass reads of these heads what the layer has kept anyway.
  heads = checkpoint_name(heads, "mixed_heads")
  normaliser = checkpoint_name(normaliser, "softmax")
  return heads, (parts_BxTxSxHxD, keys_BxRxT, words, heads, normaliser)


def _attend_backward(
  settings: Settings, saved: _Saved, grad_BxTxSxHxD: jax.Array
) -> tuple[jax.Array, jax.Array, np.ndarray, jax.Array | None]:
  parts, keys_BxRxT, words, heads_BxTxSxHxD, normaliser_BxHxT = saved
  # Of a probability's gradient, what all keys of a query have in common.
  common_BxHxT = jnp.einsum(
    "bthd,bthd->bht",
    heads_BxTxSxHxD[:, :, _ATTENDED],
    grad_BxTxSxHxD[:, :, _ATTENDED],
    preferred_element_type=jnp.float32,
  )
  arguments = (
    parts, keys_BxRxT, words, grad_BxTxSxHxD, normaliser_BxHxT, common_BxHxT,
  )  # fmt: skip
  grad_query = _grad_of_queries(settings, *arguments)
  grad_key, grad_value = _grad_of_keys(settings, *arguments)
  rest = parts.shape[2] - _NUM_HEADS_READ
  zeros = [jnp.zeros_like(grad_query)] * rest
  has_others = heads_BxTxSxHxD.shape[2] > 1
  return (
    jnp.stack([grad_query, grad_key, grad_value, *zeros], axis=2),
    jnp.zeros_like(keys_BxRxT),
    np.zeros(words.shape, jax.dtypes.float0),
    grad_BxTxSxHxD[:, :, _BESIDE] if has_others else None,
  )


attend.defvjp(_attend_forward, _attend_backward)


def _forward(
  settings: Settings,
  parts: jax.Array,
  keys_BxRxT: jax.Array,
  words: jax.Array,
  num_stacked: int,
) -> tuple[jax.Array, jax.Array]:
  """Returns the heads, and log sum exp of the logits [B, H, T].

  The heads are the first of `num_stacked`, [B, T, S, H, D]; of the others,
  nothing is written.
  """
  shape = _Shape(settings, parts, keys_BxRxT)

  def body(
    parts: Any, keys: Any, words: Any, out: Any, normaliser: Any, scratch: Any
  ) -> None:
    tile, key, value, (all_bias, *all_texts), of_rows, loaded, tile_loaded = (
      scratch
    )
    place = _Place(shape, words)
    place.load_once(
      loaded,
      (place.part(parts, _KEY), key),
      (place.part(parts, _VALUE), value),
      (keys.at[place.row, _BIAS], all_bias),
      *place.texts(keys, all_texts),
    )
    for start in place.tiles():
      rows = pl.ds(start, _ROWS)
      query = tile.at[0, place.warpgroup]
      own = place.own_rows(of_rows)
      place.load(
        tile_loaded.at[place.warpgroup],
        (place.part(parts, _QUERY, rows), query),
        *place.texts(keys, own[1:], rows),
      )

      def step(
        block: jax.Array,
        carry: tuple[jax.Array, jax.Array, jax.Array],
        query: Any = query,
        own: Any = own,
        start: jax.Array = start,
      ) -> tuple[jax.Array, jax.Array, jax.Array]:
        top, total, summed = carry
        first = block * _FORWARD_COLUMNS
        columns = pl.ds(first, _FORWARD_COLUMNS)
        logits = shape.product(query, key.at[columns], transposed=True)
        logits = logits * shape.scale + place.bias(
          _of_columns(all_bias[columns], logits.shape),
          own[1:],
          [texts.at[columns] for texts in all_texts],
        )
        new_top = jnp.maximum(top, jnp.max(logits, axis=1))
        shrunk = jnp.exp(top - new_top)
        weights = jnp.exp(logits - _of_rows(new_top, logits.shape))
        total = total * shrunk + jnp.sum(weights, axis=1)
        kept = place.drop(weights, start, first, queries_are_rows=True)
        summed = summed * _of_rows(shrunk, summed.shape) + shape.product(
          kept.astype(shape.dtype), value.at[columns]
        )
        return new_top, total, summed

      top, total, summed = lax.fori_loop(
        0,
        shape.length // _FORWARD_COLUMNS,
        step,
        (
          jnp.full((_ROWS,), _LOWEST, jnp.float32),
          jnp.zeros((_ROWS,), jnp.float32),
          jnp.zeros((_ROWS, shape.head_size), jnp.float32),
        ),
      )
      averaged = summed / _of_rows(total, summed.shape)
      query[...] = averaged.astype(shape.dtype)
      own[0][...] = top + jnp.log(total)
      place.store(
        (query, place.part(out, _ATTENDED, rows)),
        (own[0], place.vector(normaliser, rows)),
      )

  return shape.call(
    body,
    out_type=[shape.stacked(num_stacked), shape.vectors],
    num_tiles=1,
    num_whole=2,
    num_vectors=(1, 1, 0),
    num_products=2,
    arguments=(parts, keys_BxRxT, words),
  )


def _grad_of_queries(
  settings: Settings,
  parts: jax.Array,
  keys_BxRxT: jax.Array,
  words: jax.Array,
  grad_BxTxSxHxD: jax.Array,
  normaliser_BxHxT: jax.Array,
  common_BxHxT: jax.Array,
) -> jax.Array:
  """Returns the gradient of the queries; 64 of them at a time."""
  shape = _Shape(settings, parts, keys_BxRxT)

  def body(
    parts: Any, keys: Any, words: Any, grad: Any, normaliser: Any, common: Any,
    out: Any, scratch: Any,
  ) -> None:  # fmt: skip
    tiles, key, value, (all_bias, *all_texts), of_rows, loaded, tile_loaded = (
      scratch
    )
    place = _Place(shape, words)
    place.load_once(
      loaded,
      (place.part(parts, _KEY), key),
      (place.part(parts, _VALUE), value),
      (keys.at[place.row, _BIAS], all_bias),
      *place.texts(keys, all_texts),
    )
    query, of_out = (tiles.at[i, place.warpgroup] for i in range(2))
    for start in place.tiles():
      rows = pl.ds(start, _ROWS)
      own_normal, own_common, *own_texts = place.own_rows(of_rows)
      place.load(
        tile_loaded.at[place.warpgroup],
        (place.part(parts, _QUERY, rows), query),
        (place.part(grad, _ATTENDED, rows), of_out),
        (place.vector(normaliser, rows), own_normal),
        (place.vector(common, rows), own_common),
        *place.texts(keys, own_texts, rows),
      )

      def step(
        block: jax.Array, summed: jax.Array, start: jax.Array = start
      ) -> jax.Array:
        first = block * _BACKWARD_COLUMNS
        columns = pl.ds(first, _BACKWARD_COLUMNS)
        logits = shape.product(query, key.at[columns], transposed=True)
        tile = logits.shape
        logits = logits * shape.scale + place.bias(
          _of_columns(all_bias[columns], tile),
          place.own_rows(of_rows)[2:],
          [texts.at[columns] for texts in all_texts],
        )
        normal = _of_rows(of_rows[0, place.warpgroup], tile)
        probs = jnp.exp(logits - normal)
        grads = shape.product(of_out, value.at[columns], transposed=True)
        grads = place.drop(grads, start, first, queries_are_rows=True)
        grads = probs * (grads - _of_rows(of_rows[1, place.warpgroup], tile))
        return summed + shape.product(
          grads.astype(shape.dtype), key.at[columns]
        )

      summed = lax.fori_loop(
        0,
        shape.length // _BACKWARD_COLUMNS,
        step,
        jnp.zeros((_ROWS, shape.head_size), jnp.float32),
      )
      query[...] = (summed * shape.scale).astype(shape.dtype)
      place.store((query, place.head_of(out, rows)))

  return shape.call(
    body,
    out_type=shape.heads,
    num_tiles=2,
    num_whole=2,
    num_vectors=(1, 2, 2),
    num_products=3,
    arguments=(
      parts, keys_BxRxT, words, grad_BxTxSxHxD, normaliser_BxHxT, common_BxHxT,
    ),
  )  # fmt: skip


def _grad_of_keys(
  settings: Settings,
  parts: jax.Array,
  keys_BxRxT: jax.Array,
  words: jax.Array,
  grad_BxTxSxHxD: jax.Array,
  normaliser_BxHxT: jax.Array,
  common_BxHxT: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns the gradients of keys and values; 64 of them at a time."""
  shape = _Shape(settings, parts, keys_BxRxT)

  def body(
    parts: Any, keys: Any, words: Any, grad: Any, normaliser: Any, common: Any,
    grad_key: Any, grad_value: Any, scratch: Any,
  ) -> None:  # fmt: skip
    tiles, query, of_out, vectors, of_rows, loaded, tile_loaded = scratch
    all_normal, all_common, *all_texts = vectors
    place = _Place(shape, words)
    place.load_once(
      loaded,
      (place.part(parts, _QUERY), query),
      (place.part(grad, _ATTENDED), of_out),
      (place.vector(normaliser), all_normal),
      (place.vector(common), all_common),
      *place.texts(keys, all_texts),
    )
    key, value = (tiles.at[i, place.warpgroup] for i in range(2))
    for start in place.tiles():
      rows = pl.ds(start, _ROWS)
      own_bias, *own_texts = place.own_rows(of_rows)
      place.load(
        tile_loaded.at[place.warpgroup],
        (place.part(parts, _KEY, rows), key),
        (place.part(parts, _VALUE, rows), value),
        (keys.at[place.row, _BIAS, rows], own_bias),
        *place.texts(keys, own_texts, rows),
      )

      def step(
        block: jax.Array,
        carry: tuple[jax.Array, jax.Array],
        start: jax.Array = start,
      ) -> tuple[jax.Array, jax.Array]:
        of_key, of_value = carry
        first = block * _BACKWARD_COLUMNS
        columns = pl.ds(first, _BACKWARD_COLUMNS)
        logits = shape.product(key, query.at[columns], transposed=True)
        tile = logits.shape
        logits = logits * shape.scale
        logits = logits + place.bias(
          _of_rows(of_rows[0, place.warpgroup], tile),
          place.own_rows(of_rows)[1:],
          [texts.at[columns] for texts in all_texts],
        )
        probs = jnp.exp(logits - _of_columns(all_normal[columns], tile))
        kept = place.drop(probs, start, first, queries_are_rows=False)
        of_value = of_value + shape.product(
          kept.astype(shape.dtype), of_out.at[columns]
        )
        grads = shape.product(value, of_out.at[columns], transposed=True)
        grads = place.drop(grads, start, first, queries_are_rows=False)
        grads = probs * (grads - _of_columns(all_common[columns], tile))
        of_key = of_key + shape.product(
          grads.astype(shape.dtype), query.at[columns]
        )
        return of_key, of_value

      zeros = jnp.zeros((_ROWS, shape.head_size), jnp.float32)
      of_key, of_value = lax.fori_loop(
        0, shape.length // _BACKWARD_COLUMNS, step, (zeros, zeros)
      )
      key[...] = (of_key * shape.scale).astype(shape.dtype)
      value[...] = of_value.astype(shape.dtype)
      place.store(
        (key, place.head_of(grad_key, rows)),
        (value, place.head_of(grad_value, rows)),
      )

  return shape.call(
    body,
    out_type=[shape.heads, shape.heads],
    num_tiles=2,
    num_whole=2,
    num_vectors=(2, 1, 1),
    num_products=4,
    arguments=(
      parts, keys_BxRxT, words, grad_BxTxSxHxD, normaliser_BxHxT, common_BxHxT,
    ),
  )  # fmt: skip


class _Shape:
  """Sizes of a call, and what is the same at every place of it."""

  def __init__(
    self, settings: Settings, parts: jax.Array, keys_BxRxT: jax.Array
  ) -> None:
    self.settings = settings
    self.has_texts = keys_BxRxT.shape[1] > _TEXT
    self.batch, self.length, _, self.num_heads, self.head_size = parts.shape
    self.dtype = parts.dtype
    self.scale = self.head_size**-0.5
    self.heads = jax.ShapeDtypeStruct(
      (self.batch, self.length, self.num_heads, self.head_size), self.dtype
    )
    self.vectors = jax.ShapeDtypeStruct(
      (self.batch, self.num_heads, self.length), jnp.float32
    )

  def stacked(self, num_stacked: int) -> jax.ShapeDtypeStruct:
    """Returns the type of so many arrays of heads, [B, T, S, H, D]."""
    batch, length, *head = self.heads.shape
    return jax.ShapeDtypeStruct((batch, length, num_stacked, *head), self.dtype)

  def product(self, left: Any, right: Any, *, transposed: bool = False) -> Any:
    """Returns `left @ right`, or `left @ right.T`, float32 in registers.

    Args:
      left: [64, I], in shared memory or registers.
      right: in shared memory.
      transposed: whether `right` is [O, I].
    """
    if self.settings.interpret:
      right = right[...].T if transposed else right[...]
      return jnp.dot(left[...], right, preferred_element_type=jnp.float32)
    right = gpu.transpose_ref(right, (1, 0)) if transposed else right

    def multiply(accumulator: Any) -> Any:
      gpu.wgmma(accumulator, left, right)
      return accumulator[...]

    return pl.run_scoped(
      multiply, gpu.ACC((_ROWS, right.shape[1]), jnp.float32)
    )

  def call(
    self,
    body: Callable[..., None],
    *,
    out_type: Any,
    num_tiles: int,
    num_whole: int,
    num_vectors: tuple[int, int, int],
    num_products: int,
    arguments: Sequence[jax.Array],
  ) -> Any:
    """Runs a body for each row and head.

    Args:
      body: of the arguments, the results, and a tuple of shared memory: tiles
        [num_tiles, warpgroups, 64, D], whole heads [T, D], a list of whole
        vectors [T], vectors of rows [N, warpgroups, 64], and barriers.
      out_type: of the results.
      num_tiles: heads that each warpgroup reads 64 rows of.
      num_whole: heads that are read whole.
      num_vectors: vectors that are read whole, that are by rows, and of these
        that are read.
      num_products: between queries and keys, and as large.
      arguments: of the kernel.
    """
    swizzle = math.gcd(2 * self.head_size, 128)
    transforms = (
      gpu.TilingTransform((8, swizzle // 2)),
      gpu.SwizzleTransform(swizzle),
    )

    def heads(*shape: int) -> Any:
      return gpu.SMEM(
        (*shape, self.head_size), self.dtype, transforms=transforms
      )

    # The texts of keys and queries, where there are several.
    whole, by_rows, read = (each + self.has_texts for each in num_vectors)
    vectors = [gpu.SMEM((self.length,), jnp.float32)] * whole
    scratch = (
      heads(num_tiles, _WARPGROUPS, _ROWS),
      *[heads(self.length)] * num_whole,
      vectors,
      gpu.SMEM((by_rows, _WARPGROUPS, _ROWS), jnp.float32),
      gpu.Barrier(num_arrivals=(num_whole + whole) * self.length // _COPIED),
      gpu.Barrier(num_arrivals=num_tiles + read, num_barriers=_WARPGROUPS),
    )
    kernel = gpu.kernel(
      body,
      out_type=out_type,
      grid=(self.batch, self.num_heads),
      grid_names=("row", "head"),
      num_threads=_WARPGROUPS,
      thread_name="warpgroup",
      scratch_types=[scratch],
      compiler_params=gpu.CompilerParams(
        lowering_semantics=gpu.LoweringSemantics.Warpgroup
      ),
      interpret=self.settings.interpret,
    )
    # Each array of heads that is read or written, once; vectors are small.
    num_written = sum(
      each.dtype == self.dtype for each in jax.tree.leaves(out_type)
    )
    size = self.batch * self.length * self.num_heads * self.head_size
    with cost.stated(
      flops=2 * num_products * size * self.length,
      num_bytes=(num_tiles + num_whole + num_written)
      * size
      * self.dtype.itemsize,
    ):
      return kernel(*arguments)


class _Place:
  """The row, head and warpgroup that runs, and what it reads and writes."""

  def __init__(self, shape: _Shape, words: Any) -> None:
    self._shape = shape
    self._words = words
    self.row = lax.axis_index("row")
    self.head = lax.axis_index("head")
    self.warpgroup = lax.axis_index("warpgroup")

  def tiles(self) -> list[jax.Array]:
    """Returns the first rows of this warpgroup's tiles."""
    step = _ROWS * _WARPGROUPS
    own = self.warpgroup * _ROWS
    return [own + first for first in range(0, self._shape.length, step)]

  def part(self, parts: Any, which: int, rows: Any = slice(None)) -> Any:
    """Returns a part of this head, [rows, D]."""
    return parts.at[self.row, rows, which, self.head]

  def head_of(self, heads: Any, rows: Any = slice(None)) -> Any:
    """Returns this head of an array [B, T, H, D], [rows, D]."""
    return heads.at[self.row, rows, self.head]

  def vector(self, vectors: Any, rows: Any = slice(None)) -> Any:
    """Returns this head's vector of [B, H, T], [rows]."""
    return vectors.at[self.row, self.head, rows]

  def own_rows(self, of_rows: Any) -> list[Any]:
    """Returns this warpgroup's part of each vector of rows."""
    return [of_rows.at[i, self.warpgroup] for i in range(of_rows.shape[0])]

  def texts(
    self, keys: Any, targets: Sequence[Any], rows: Any = slice(None)
  ) -> list[tuple[Any, Any]]:
    """Returns the copies of texts, one or none."""
    return [(keys.at[self.row, _TEXT, rows], target) for target in targets]

  def bias(
    self, bias: jax.Array, of_rows: Sequence[Any], of_columns: Sequence[Any]
  ) -> jax.Array:
    """Returns what is added to a tile of logits.

    Args:
      bias: of the keys, spread over the tile.
      of_rows: the texts of the tile's rows, [64], or nothing.
      of_columns: those of its columns, likewise.
    """
    for rows, columns in zip(of_rows, of_columns, strict=True):
      same = _of_rows(rows[...], bias.shape) == _of_columns(
        columns[...], bias.shape
      )
      bias = lax.select(same, bias, jnp.full_like(bias, MASKED_LOGIT))
    return bias

  def load_once(self, barrier: Any, *copies: tuple[Any, Any]) -> None:
    """Copies to shared memory what all warpgroups read."""

    @pl.when(self.warpgroup == 0)
    def _() -> None:
      for source, target in copies:
        for first in range(0, self._shape.length, _COPIED):
          rows = pl.ds(first, _COPIED)
          gpu.copy_gmem_to_smem(source.at[rows], target.at[rows], barrier)

    gpu.barrier_wait(barrier)

  def load(self, barrier: Any, *copies: tuple[Any, Any]) -> None:
    """Copies to shared memory what this warpgroup reads."""
    for source, target in copies:
      gpu.copy_gmem_to_smem(source, target, barrier)
    gpu.barrier_wait(barrier)

  def store(self, *copies: tuple[Any, Any]) -> None:
    """Copies from shared memory what this warpgroup has written there."""
    gpu.commit_smem()
    for source, target in copies:
      gpu.copy_smem_to_gmem(source, target)
    gpu.wait_smem_to_gmem(0)

  def drop(
    self,
    tile: jax.Array,
    row: jax.Array,
    column: jax.Array,
    *,
    queries_are_rows: bool,
  ) -> jax.Array:
    """Returns a tile of a head's [T, T] with dropout, as `dropout.dropout`.

    Args:
      tile: of probabilities, or their gradients.
      row: of the tile's first element.
      column: of the tile's first element.
      queries_are_rows: otherwise the rows are keys.
    """
    rate = self._shape.settings.rate
    if not rate:
      return tile
    words, length = self._words, jnp.uint32(self._shape.length)
    in_batch = self.row.astype(jnp.uint32) + words[2]
    in_row = self.head.astype(jnp.uint32) + words[3]
    head = in_batch * jnp.uint32(self._shape.settings.num_heads) + in_row
    along, across = (
      lax.broadcasted_iota(jnp.uint32, tile.shape, axis) for axis in range(2)
    )
    rows, columns = (
      along + row.astype(jnp.uint32), across + column.astype(jnp.uint32)
    )  # fmt: skip
    query, key = (rows, columns) if queries_are_rows else (columns, rows)
    index = (query + head * length) * length + key
    return dropout.masked_by(dropout.hash_word(index, words), tile, rate)


def _of_rows(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  return lax.broadcast_in_dim(vector, shape, [0])


def _of_columns(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  return lax.broadcast_in_dim(vector, shape, [1])
