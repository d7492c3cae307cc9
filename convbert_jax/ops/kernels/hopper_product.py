"""Matrix products and what follows them, in one pass, for Hopper GPUs.

A product's result stays in registers until all that is elementwise after it is
done: a bias, an activation, dropout, a sum. XLA writes it to memory first, and
reads it again.

A block of two warpgroups computes 128 x 128 results, 64 rows each. Tiles of
both factors are on their way to shared memory while others are multiplied; when
all have been, the space of the first factor's holds what the rest reads and
writes. Where a thread takes no more than 128 registers, two blocks fit into a
multiprocessor, and one multiplies while the other does the rest.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
    row: index of the first row, in a part of all rows.
    column: index of the first column.
    num_columns: of the whole result.
    words: the words of the call, or None.
    bias: of their columns, float32, of the shape of the products; or None.
    summand: what stands in their place in another matrix, likewise.
  """

  products: jax.Array
  row: jax.Array
  column: jax.Array
  num_columns: int
  words: Any = None
  bias: jax.Array | None = None
  summand: jax.Array | None = None

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
    right_is_transposed: whether `right` is [O, I]. The emulator gets it turned
      around: reading it so is only compiled in tests.
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

  Raises:
    ValueError: if it does not fit.
  """
  if interpret and right_is_transposed:
    # It has no view of an array turned around.
    right, right_is_transposed = right.T, False
  num_rows, depth = left_NxI.shape
  num_columns = right.shape[0 if right_is_transposed else 1]
  if not fits(num_rows, depth, num_columns, left_NxI.dtype):
    raise ValueError(f"{left_NxI.shape} x {right.shape} does not fit")
  given = {
    "bias": None if bias_O is None else bias_O.astype(jnp.float32),
    "summand": summand_NxO,
    "words": words,
  }
  given = {name: array for name, array in given.items() if array is not None}
  result = jax.ShapeDtypeStruct((num_rows, num_columns), left_NxI.dtype)
  results = [result] * num_results
  if sums_rows:
    shape = (num_rows // SUMMED_ROWS, num_columns)
    results.append(jax.ShapeDtypeStruct(shape, jnp.float32))
  block = _Block(
    depth,
    num_columns,
    right_is_transposed,
    epilogue,
    tuple(given),
    num_results,
    sums_rows,
  )
  kernel = gpu.kernel(
    block.compute,
    out_type=results,
    grid=(num_rows // _BLOCK_ROWS * block.num_across,),
    grid_names=("block",),
    num_threads=_WARPGROUPS,
    thread_name="warpgroup",
    scratch_types=[block.shared_memory(left_NxI.dtype)],
    compiler_params=gpu.CompilerParams(
      lowering_semantics=gpu.LoweringSemantics.Warpgroup
    ),
    interpret=interpret,
  )
  moved = [left_NxI, right, *given.values(), *results]
  with cost.stated(
    flops=2 * num_rows * depth * num_columns,
    num_bytes=sum(each.size * each.dtype.itemsize for each in moved),
  ):
    return kernel(left_NxI, right, *given.values())


class _Shared(NamedTuple):
  """Shared memory of a block.

  Attributes:
    lefts: tiles of the first factor, [slots, 128, 64].
    rights: those of the second.
    biases: of the columns at hand, for each warpgroup.
    sums: over the rows of a warpgroup, likewise.
    loaded: for each slot, whether both tiles are there.
    free: for each slot, whether both warpgroups have read it.
    arrived: for each warpgroup, whether bias and summand are there.
    turns: for each warpgroup, whether it may sum over rows.
  """

  lefts: Any
  rights: Any
  biases: Any
  sums: Any
  loaded: Any
  free: Any
  arrived: Any
  turns: Any


@dataclasses.dataclass(frozen=True)
class _Block:
  """What a block computes; see `product`.

  Attributes:
    depth: that is summed over.
    num_columns: of the whole result.
    right_is_transposed: as for `product`.
    epilogue: as for `product`.
    given: names of what the epilogue reads, in the order of arguments.
    num_results: as for `product`.
    sums_rows: as for `product`.
  """

  depth: int
  num_columns: int
  right_is_transposed: bool
  epilogue: Epilogue
  given: tuple[str, ...]
  num_results: int
  sums_rows: bool

  @property
  def columns(self) -> int:
    """Columns of a block."""
    whole = self.num_columns % _BLOCK_COLUMNS == 0
    return _BLOCK_COLUMNS if whole else _DEPTH

  @property
  def num_across(self) -> int:
    """Blocks side by side."""
    return self.num_columns // self.columns

  @property
  def _num_steps(self) -> int:
    return self.depth // _DEPTH

  @property
  def _num_copied(self) -> int:
    """Arrays that the epilogue reads from shared memory."""
    return len({"bias", "summand"} & set(self.given))

  def shared_memory(self, dtype: Any) -> _Shared:
    """Returns what the block needs of it."""
    transforms = (
      gpu.TilingTransform((8, _SWIZZLE // 2)),
      gpu.SwizzleTransform(_SWIZZLE),
    )
    right_tile = (_DEPTH, self.columns)
    if self.right_is_transposed:
      right_tile = right_tile[::-1]

    def tiles(*shape: int) -> Any:
      return gpu.SMEM((_NUM_SLOTS, *shape), dtype, transforms=transforms)

    rows_of_columns = gpu.SMEM((_WARPGROUPS, _DEPTH), jnp.float32)
    return _Shared(
      tiles(_BLOCK_ROWS, _DEPTH),
      tiles(*right_tile),
      rows_of_columns,
      rows_of_columns,
      gpu.Barrier(num_arrivals=2, num_barriers=_NUM_SLOTS),
      gpu.Barrier(num_arrivals=_WARPGROUPS, num_barriers=_NUM_SLOTS),
      gpu.Barrier(
        num_arrivals=max(self._num_copied, 1), num_barriers=_WARPGROUPS
      ),
      gpu.Barrier(num_arrivals=1, num_barriers=_WARPGROUPS),
    )

  def compute(self, left: Any, right: Any, *rest: Any) -> None:
    """Runs on both warpgroups, given all arrays and shared memory."""
    *references, shared = rest
    # Blocks that run at the same time share rows: the first factor is read from
    # memory once, and the second, of weights, stays in the cache.
    block = lax.axis_index("block")
    row = lax.div(block, self.num_across) * _BLOCK_ROWS
    column = lax.rem(block, self.num_across) * self.columns
    products = pl.run_scoped(
      functools.partial(self._multiply, left, right, shared, row, column),
      gpu.ACC((_ROWS, self.columns), jnp.float32),
    )
    self._finish(products, references, shared, row, column)

  def _multiply(
    self,
    left: Any,
    right: Any,
    shared: _Shared,
    row: jax.Array,
    column: jax.Array,
    accumulator: Any,
  ) -> jax.Array:
    """Returns the products of this warpgroup's rows, [64, columns]."""
    warpgroup = lax.axis_index("warpgroup")
    rows, across = pl.ds(row, _BLOCK_ROWS), pl.ds(column, self.columns)

    def load(step: jax.Array | int) -> None:
      slot, inner = lax.rem(step, _NUM_SLOTS), pl.ds(step * _DEPTH, _DEPTH)
      tile = (inner, across)
      if self.right_is_transposed:
        tile = (across, inner)
      for source, target in (
        (left.at[rows, inner], shared.lefts),
        (right.at[tile], shared.rights),
      ):
        gpu.copy_gmem_to_smem(source, target.at[slot], shared.loaded.at[slot])

    @pl.when(warpgroup == 0)
    def _() -> None:
      for step in range(min(_NUM_SLOTS, self._num_steps)):
        load(step)

    def multiply_tiles(step: jax.Array, _: None) -> None:
      slot = lax.rem(step, _NUM_SLOTS)
      gpu.barrier_wait(shared.loaded.at[slot])
      factor = shared.rights.at[slot]
      if self.right_is_transposed:
        factor = gpu.transpose_ref(factor, (1, 0))
      gpu.wgmma(accumulator, _own_rows(shared, slot), factor)
      # Meanwhile, the slot of the step before is filled again.
      later = step - 1 + _NUM_SLOTS

      @pl.when((warpgroup == 0) & (step > 0) & (later < self._num_steps))
      def _() -> None:
        gpu.barrier_wait(shared.free.at[lax.rem(later, _NUM_SLOTS)])
        load(later)

      gpu.wgmma_wait(0)

      @pl.when(step + _NUM_SLOTS < self._num_steps)
      def _() -> None:
        gpu.barrier_arrive(shared.free.at[slot])

    lax.fori_loop(0, self._num_steps, multiply_tiles, None)
    return accumulator[...]

  def _finish(
    self,
    products: jax.Array,
    references: Sequence[Any],
    shared: _Shared,
    row: jax.Array,
    column: jax.Array,
  ) -> None:
    """Computes the results from products, and writes them."""
    warpgroup = lax.axis_index("warpgroup")
    named = dict(zip(self.given, references, strict=False))
    results = references[len(self.given) :]
    # All of this warpgroup's rows have been read: there is room for others.
    incoming, *outgoing = (
      _own_rows(shared, slot) for slot in range(_NUM_SLOTS)
    )
    sums = shared.sums.at[warpgroup]
    row += warpgroup * _ROWS
    for start in range(0, self.columns, _DEPTH):
      tile = Tile(
        products[:, start : start + _DEPTH],
        row=row,
        column=column + start,
        num_columns=self.num_columns,
        words=named.get("words"),
      )
      place = pl.ds(row, _ROWS), pl.ds(tile.column, _DEPTH)
      found = self.epilogue(self._with_arrays(tile, named, shared, incoming))
      # What was written before has left.
      gpu.wait_smem_to_gmem(0, wait_read_only=True)
      for values, space in zip(found, outgoing, strict=False):
        space[...] = values.astype(space.dtype)
      if self.sums_rows:
        self._sum_rows(found[0], sums, shared.turns, start)
      gpu.commit_smem()
      for space, result in zip(
        outgoing, results[: self.num_results], strict=False
      ):
        gpu.copy_smem_to_gmem(space, result.at[place])
      if self.sums_rows:
        summed = results[-1].at[lax.div(row, _ROWS), place[1]]
        gpu.copy_smem_to_gmem(sums, summed)
    gpu.wait_smem_to_gmem(0)

  def _with_arrays(
    self,
    tile: Tile,
    named: Mapping[str, Any],
    shared: _Shared,
    incoming: Any,
  ) -> Tile:
    """Returns a tile with what the epilogue reads of arrays."""
    warpgroup = lax.axis_index("warpgroup")
    across = pl.ds(tile.column, _DEPTH)
    bias = shared.biases.at[warpgroup]
    for name, source, target in (
      ("bias", (across,), bias),
      ("summand", (pl.ds(tile.row, _ROWS), across), incoming),
    ):
      if name in named:
        gpu.copy_gmem_to_smem(
          named[name].at[source], target, shared.arrived.at[warpgroup]
        )
    if self._num_copied:
      gpu.barrier_wait(shared.arrived.at[warpgroup])
    if "bias" in named:
      spread = lax.broadcast_in_dim(bias[...], (_ROWS, _DEPTH), [1])
      tile = dataclasses.replace(tile, bias=spread)
    if "summand" in named:
      summand = incoming[...].astype(jnp.float32)
      tile = dataclasses.replace(tile, summand=summand)
    return tile

  def _sum_rows(
    self, values: jax.Array, sums: Any, turns: Any, start: int
  ) -> None:
    """Sums a tile [64, 64] over its rows, [64].

    Between warps, the compiler sums through shared memory, and has one place of
    it for both warpgroups: one sums after the other.
    """
    warpgroup = lax.axis_index("warpgroup")
    is_first, is_last = start == 0, start + _DEPTH == self.columns

    @pl.when((warpgroup == 1) | (not is_first))
    def _() -> None:
      gpu.barrier_wait(turns.at[warpgroup])

    sums[...] = jnp.sum(values, axis=0)

    @pl.when((warpgroup == 0) | (not is_last))
    def _() -> None:
      gpu.barrier_arrive(turns.at[1 - warpgroup])


def _own_rows(shared: _Shared, slot: Any) -> Any:
  """Returns this warpgroup's part of a tile of the first factor."""
  rows = pl.ds(lax.axis_index("warpgroup") * _ROWS, _ROWS)
  return shared.lefts.at[slot, rows]
