"""Matrix products and what follows them, in one pass, for Hopper GPUs.

A product's result stays in registers until all that is elementwise after it is
done: a bias, an activation, dropout, a sum. XLA writes it to memory first, and
reads it again.

A block of two warpgroups computes 128 x 128 results, 64 rows each. Tiles of both
factors are on their way to shared memory while others are multiplied; when all
have been, the space of the first factor's holds what the rest reads and writes.
Two blocks fit into a multiprocessor, so that one multiplies while the other
does the rest.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as gpu

from convbert_jax.ops.kernels import cost

# Rows that a warpgroup's products have in the hardware.
_ROWS = 64
_WARPGROUPS = 2
_BLOCK_ROWS = _ROWS * _WARPGROUPS
_BLOCK_COLUMNS = 128
# Summed over at a time, and the columns of a tile that is read or written.
_DEPTH = 64
# That `product` sums up, if asked to.
SUMMED_ROWS = _ROWS
# Tiles of the factors that are on their way or being read.
_NUM_SLOTS = 3
_SWIZZLE = 128


@dataclasses.dataclass(frozen=True)
class Tile:
  """What an epilogue has of 64 x 64 results.

  Attributes:
    products: sums of products, float32.
    bias: of their columns, float32, of the same shape; or None.
    summand: what stands in their place in another matrix, likewise.
    words: the words of the call, or None.
    row: index of the first row, of a part of all rows.
    column: index of the first column.
    num_columns: of the whole result.
  """

  products: jax.Array
  bias: jax.Array | None
  summand: jax.Array | None
  words: Any
  row: jax.Array
  column: jax.Array
  num_columns: int

  def index(self) -> jax.Array:
    """Returns where each element stands in the result of all rows, uint32."""
    shape = self.products.shape
    rows, columns = (
      lax.broadcasted_iota(jnp.uint32, shape, axis) + first.astype(jnp.uint32)
      for axis, first in enumerate((self.row, self.column))
    )
    return (rows + self.words[2]) * jnp.uint32(self.num_columns) + columns


# From a tile to the results, each float32 and of the tile's shape.
Epilogue = Callable[[Tile], Sequence[jax.Array]]


def fits(num_rows: int, depth: int, num_columns: int, dtype: Any) -> bool:
  """Says whether a product [N, I] x [I, O] can be computed here.

  Args:
    num_rows: `N`.
    depth: `I`.
    num_columns: `O`.
    dtype: of both factors.
  """
  return (
    num_rows % _BLOCK_ROWS == 0
    and depth % _DEPTH == 0
    and num_columns % _DEPTH == 0
    and jnp.dtype(dtype) == jnp.bfloat16
  )


@dataclasses.dataclass(frozen=True)
class _Sizes:
  """Of a call."""

  rows: int
  depth: int
  columns: int

  @property
  def block_columns(self) -> int:
    """Columns that a block computes."""
    whole = self.columns % _BLOCK_COLUMNS == 0
    return _BLOCK_COLUMNS if whole else _DEPTH

  @property
  def num_blocks(self) -> int:
    """Blocks of the whole result."""
    return self.rows // _BLOCK_ROWS * self._blocks_across

  @property
  def _blocks_across(self) -> int:
    return self.columns // self.block_columns

  def corner(self, block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the first row and column of a block.

    Blocks that run at the same time share rows: the first factor is read from
    memory once, the second, of weights, stays in the cache.
    """
    across = self._blocks_across
    return block // across * _BLOCK_ROWS, block % across * self.block_columns


def product(
  left_NxI: jax.Array,
  right: jax.Array,
  epilogue: Epilogue,
  *,
  right_is_transposed: bool = False,
  bias_O: jax.Array | None = None,
  summand_NxO: jax.Array | None = None,
  words: jax.Array | None = None,
  num_results: int = 1,
  sums_rows: bool = False,
  interpret: Any = None,
) -> list[jax.Array]:
  """Multiplies, and passes tiles of the product through a function.

  Args:
    left_NxI: bfloat16; see `fits`.
    right: [I, O], or [O, I].
    epilogue: what the results are, tile by tile.
    right_is_transposed: whether `right` is [O, I].
    bias_O: a row that the function reads.
    summand_NxO: a matrix that it reads, in the dtype of the factors.
    words: uint32 [3], that it reads; the last is added to the rows of
      `Tile.index`.
    num_results: that it returns, two at most.
    sums_rows: whether the first of them is summed over 64 rows at a time.
    interpret: emulates the GPU; for tests.

  Returns:
    The results, [N, O] each, in the dtype of the factors; and, if asked for,
    the sums [N / 64, O], float32.
  """
  if interpret and right_is_transposed:
    # The emulator has no view of an array turned around.
    right, right_is_transposed = right.T, False
  num_rows, depth = left_NxI.shape
  sizes = _Sizes(num_rows, depth, right.shape[0 if right_is_transposed else 1])
  dtype, columns = left_NxI.dtype, sizes.block_columns
  num_steps = depth // _DEPTH
  results = [jax.ShapeDtypeStruct((num_rows, sizes.columns), dtype)]
  results *= num_results
  if sums_rows:
    shape = (num_rows // _ROWS, sizes.columns)
    results.append(jax.ShapeDtypeStruct(shape, jnp.float32))
  right_tile = (columns, _DEPTH) if right_is_transposed else (_DEPTH, columns)
  given = {
    "bias": None if bias_O is None else bias_O.astype(jnp.float32),
    "summand": summand_NxO,
    "words": words,
  }
  given = {name: array for name, array in given.items() if array is not None}
  # The words are read where they are.
  num_copied = len(given.keys() - {"words"})

  def body(left: Any, right: Any, *rest: Any) -> None:
    *references, scratch = rest
    named = dict(zip(given, references, strict=False))
    results, sums = references[len(given) :][:num_results], references[-1]
    bias, summand = named.get("bias"), named.get("summand")
    lefts, rights, biases, of_rows, loaded, free, read_in = scratch
    row, column = sizes.corner(lax.axis_index("block"))
    warpgroup = lax.axis_index("warpgroup")

    own = pl.ds(warpgroup * _ROWS, _ROWS)

    def load(step: jax.Array | int) -> None:
      slot = lax.rem(step, _NUM_SLOTS)
      inner, across = pl.ds(step * _DEPTH, _DEPTH), pl.ds(column, columns)
      for source, target in (
        (left.at[pl.ds(row, _BLOCK_ROWS), inner], lefts),
        (
          right.at[across, inner]
          if right_is_transposed
          else right.at[inner, across],
          rights,
        ),
      ):
        gpu.copy_gmem_to_smem(source, target.at[slot], loaded.at[slot])

    @pl.when(warpgroup == 0)
    def _() -> None:
      for step in range(min(_NUM_SLOTS, num_steps)):
        load(step)

    def multiply(accumulator: Any) -> jax.Array:
      def multiply_tiles(step: jax.Array, _: None) -> None:
        slot = lax.rem(step, _NUM_SLOTS)
        gpu.barrier_wait(loaded.at[slot])
        factor = rights.at[slot]
        if right_is_transposed:
          factor = gpu.transpose_ref(factor, (1, 0))
        gpu.wgmma(accumulator, lefts.at[slot, own], factor)
        # Meanwhile, the slot of the step before is filled again.
        later = step - 1 + _NUM_SLOTS

        @pl.when((warpgroup == 0) & (step > 0) & (later < num_steps))
        def _() -> None:
          gpu.barrier_wait(free.at[lax.rem(later, _NUM_SLOTS)])
          load(later)

        gpu.wgmma_wait(0)

        @pl.when(step + _NUM_SLOTS < num_steps)
        def _() -> None:
          gpu.barrier_arrive(free.at[slot])

      lax.fori_loop(0, num_steps, multiply_tiles, None)
      return accumulator[...]

    products = pl.run_scoped(multiply, gpu.ACC((_ROWS, columns), jnp.float32))
    # This warpgroup's rows have been read: there is room for others.
    tiles = [lefts.at[slot, own] for slot in range(_NUM_SLOTS)]
    arrived = read_in.at[warpgroup]
    first_row = row + warpgroup * _ROWS
    rows = pl.ds(first_row, _ROWS)
    for start in range(0, columns, _DEPTH):
      across = pl.ds(column + start, _DEPTH)
      if bias is not None:
        gpu.copy_gmem_to_smem(bias.at[across], biases.at[warpgroup], arrived)
      if summand is not None:
        gpu.copy_gmem_to_smem(summand.at[rows, across], tiles[0], arrived)
      if num_copied:
        gpu.barrier_wait(arrived)
      part = products[:, start : start + _DEPTH]
      tile = Tile(
        part,
        None
        if bias is None
        else lax.broadcast_in_dim(biases[warpgroup], part.shape, [1]),
        None if summand is None else tiles[0][...].astype(jnp.float32),
        named.get("words"),
        first_row,
        column + start,
        sizes.columns,
      )
      found = epilogue(tile)
      gpu.wait_smem_to_gmem(0, wait_read_only=True)
      for space, values in zip(tiles[1:], found, strict=False):
        space[...] = values.astype(dtype)
      if sums_rows:
        of_rows[warpgroup] = jnp.sum(found[0], axis=0)
      gpu.commit_smem()
      if sums_rows:
        target = sums.at[lax.div(first_row, _ROWS), across]
        gpu.copy_smem_to_gmem(of_rows.at[warpgroup], target)
      for space, target in zip(tiles[1:], results, strict=False):
        gpu.copy_smem_to_gmem(space, target.at[rows, across])
    gpu.wait_smem_to_gmem(0)

  transforms = (
    gpu.TilingTransform((8, _SWIZZLE // 2)),
    gpu.SwizzleTransform(_SWIZZLE),
  )
  scratch = (
    gpu.SMEM((_NUM_SLOTS, _BLOCK_ROWS, _DEPTH), dtype, transforms=transforms),
    gpu.SMEM((_NUM_SLOTS, *right_tile), dtype, transforms=transforms),
    gpu.SMEM((_WARPGROUPS, _DEPTH), jnp.float32),
    gpu.SMEM((_WARPGROUPS, _DEPTH), jnp.float32),
    gpu.Barrier(num_arrivals=2, num_barriers=_NUM_SLOTS),
    gpu.Barrier(num_arrivals=_WARPGROUPS, num_barriers=_NUM_SLOTS),
    gpu.Barrier(num_arrivals=max(num_copied, 1), num_barriers=_WARPGROUPS),
  )
  call = gpu.kernel(
    body,
    out_type=results,
    grid=(sizes.num_blocks,),
    grid_names=("block",),
    num_threads=_WARPGROUPS,
    thread_name="warpgroup",
    scratch_types=[scratch],
    compiler_params=gpu.CompilerParams(
      lowering_semantics=gpu.LoweringSemantics.Warpgroup
    ),
    interpret=interpret,
  )
  moved = [left_NxI, right, *given.values(), *results]
  with cost.stated(
    flops=2 * num_rows * depth * sizes.columns,
    num_bytes=sum(each.size * each.dtype.itemsize for each in moved),
  ):
    return call(left_NxI, right, *given.values())
