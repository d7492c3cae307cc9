"""Tiles of attention on Hopper GPUs: what runs where, and what it moves."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as gpu

from convbert_jax.ops import dropout
from convbert_jax.ops.attention import MASKED_LOGIT
from convbert_jax.ops.kernels import cost

# Parts of the projections, and of what is known of keys.
QUERY, KEY, VALUE = range(3)
BIAS, TEXT = range(2)
# Attention's heads, and others, among those that the layer has in the end.
ATTENDED, BESIDE = range(2)
# Rows of a warpgroup's matrix products, as the hardware has them.
ROWS = 64
WARPGROUPS = 2
# Rows of a copy; the hardware takes 256.
COPIED = 128


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


class Shape:
  """Sizes of a call, and what is the same at every place of it."""

  def __init__(
    self, settings: Settings, parts: jax.Array, keys_BxRxT: jax.Array
  ) -> None:
    self.settings = settings
    self.has_texts = keys_BxRxT.shape[1] > TEXT
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

    return pl.run_scoped(multiply, gpu.ACC((ROWS, right.shape[1]), jnp.float32))

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
      heads(num_tiles, WARPGROUPS, ROWS),
      *[heads(self.length)] * num_whole,
      vectors,
      gpu.SMEM((by_rows, WARPGROUPS, ROWS), jnp.float32),
      gpu.Barrier(num_arrivals=(num_whole + whole) * self.length // COPIED),
      gpu.Barrier(num_arrivals=num_tiles + read, num_barriers=WARPGROUPS),
    )
    kernel = gpu.kernel(
      body,
      out_type=out_type,
      grid=(self.batch, self.num_heads),
      grid_names=("row", "head"),
      num_threads=WARPGROUPS,
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


class Place:
  """The row, head and warpgroup that runs, and what it reads and writes."""

  def __init__(self, shape: Shape, words: Any) -> None:
    self._shape = shape
    self._words = words
    self.row = lax.axis_index("row")
    self.head = lax.axis_index("head")
    self.warpgroup = lax.axis_index("warpgroup")

  def tiles(self) -> list[jax.Array]:
    """Returns the first rows of this warpgroup's tiles."""
    step = ROWS * WARPGROUPS
    own = self.warpgroup * ROWS
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
    return [(keys.at[self.row, TEXT, rows], target) for target in targets]

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
      same = spread_rows(rows[...], bias.shape) == spread_columns(
        columns[...], bias.shape
      )
      bias = lax.select(same, bias, jnp.full_like(bias, MASKED_LOGIT))
    return bias

  def load_once(self, barrier: Any, *copies: tuple[Any, Any]) -> None:
    """Copies to shared memory what all warpgroups read."""

    @pl.when(self.warpgroup == 0)
    def _() -> None:
      for source, target in copies:
        for first in range(0, self._shape.length, COPIED):
          rows = pl.ds(first, COPIED)
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


def spread_rows(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns a tile of which each row has its number."""
  return lax.broadcast_in_dim(vector, shape, [0])


def spread_columns(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns a tile of which each column has its number."""
  return lax.broadcast_in_dim(vector, shape, [1])
