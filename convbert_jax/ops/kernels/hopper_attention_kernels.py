"""The three kernels of attention on Hopper GPUs.

Each runs once for a row and head of the batch. Arrays are those of
`hopper_attention.attend`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from convbert_jax.ops.kernels.hopper_attention_tiles import (
  ATTENDED,
  BIAS,
  KEY,
  QUERY,
  ROWS,
  VALUE,
  Place,
  Settings,
  Shape,
  spread_columns,
  spread_rows,
)

# Columns at a time; their registers are what there is.
_FORWARD_COLUMNS, _BACKWARD_COLUMNS = 128, 64
_LOWEST = -1e30


def forward(
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
  shape = Shape(settings, parts, keys_BxRxT)

  def body(
    parts: Any, keys: Any, words: Any, out: Any, normaliser: Any, scratch: Any
  ) -> None:
    tile, key, value, (all_bias, *all_texts), of_rows, loaded, tile_loaded = (
      scratch
    )
    place = Place(shape, words)
    place.load_once(
      loaded,
      (place.part(parts, KEY), key),
      (place.part(parts, VALUE), value),
      (keys.at[place.row, BIAS], all_bias),
      *place.texts(keys, all_texts),
    )
    for start in place.tiles():
      rows = pl.ds(start, ROWS)
      query = tile.at[0, place.warpgroup]
      own = place.own_rows(of_rows)
      place.load(
        tile_loaded.at[place.warpgroup],
        (place.part(parts, QUERY, rows), query),
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
          spread_columns(all_bias[columns], logits.shape),
          own[1:],
          [texts.at[columns] for texts in all_texts],
        )
        new_top = jnp.maximum(top, jnp.max(logits, axis=1))
        shrunk = jnp.exp(top - new_top)
        weights = jnp.exp(logits - spread_rows(new_top, logits.shape))
        total = total * shrunk + jnp.sum(weights, axis=1)
        kept = place.drop(weights, start, first, queries_are_rows=True)
        summed = summed * spread_rows(shrunk, summed.shape) + shape.product(
          kept.astype(shape.dtype), value.at[columns]
        )
        return new_top, total, summed

      top, total, summed = lax.fori_loop(
        0,
        shape.length // _FORWARD_COLUMNS,
        step,
        (
          jnp.full((ROWS,), _LOWEST, jnp.float32),
          jnp.zeros((ROWS,), jnp.float32),
          jnp.zeros((ROWS, shape.head_size), jnp.float32),
        ),
      )
      averaged = summed / spread_rows(total, summed.shape)
      query[...] = averaged.astype(shape.dtype)
      own[0][...] = top + jnp.log(total)
      place.store(
        (query, place.part(out, ATTENDED, rows)),
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


def grad_of_queries(
  settings: Settings,
  parts: jax.Array,
  keys_BxRxT: jax.Array,
  words: jax.Array,
  grad_BxTxSxHxD: jax.Array,
  normaliser_BxHxT: jax.Array,
  common_BxHxT: jax.Array,
) -> jax.Array:
  """Returns the gradient of the queries; 64 of them at a time."""
  shape = Shape(settings, parts, keys_BxRxT)

  def body(
    parts: Any, keys: Any, words: Any, grad: Any, normaliser: Any, common: Any,
    out: Any, scratch: Any,
  ) -> None:  # fmt: skip
    tiles, key, value, (all_bias, *all_texts), of_rows, loaded, tile_loaded = (
      scratch
    )
    place = Place(shape, words)
    place.load_once(
      loaded,
      (place.part(parts, KEY), key),
      (place.part(parts, VALUE), value),
      (keys.at[place.row, BIAS], all_bias),
      *place.texts(keys, all_texts),
    )
    query, of_out = (tiles.at[i, place.warpgroup] for i in range(2))
    for start in place.tiles():
      rows = pl.ds(start, ROWS)
      own_normal, own_common, *own_texts = place.own_rows(of_rows)
      place.load(
        tile_loaded.at[place.warpgroup],
        (place.part(parts, QUERY, rows), query),
        (place.part(grad, ATTENDED, rows), of_out),
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
          spread_columns(all_bias[columns], tile),
          place.own_rows(of_rows)[2:],
          [texts.at[columns] for texts in all_texts],
        )
        normal = spread_rows(of_rows[0, place.warpgroup], tile)
        probs = jnp.exp(logits - normal)
        grads = shape.product(of_out, value.at[columns], transposed=True)
        grads = place.drop(grads, start, first, queries_are_rows=True)
        grads = probs * (grads - spread_rows(of_rows[1, place.warpgroup], tile))
        return summed + shape.product(
          grads.astype(shape.dtype), key.at[columns]
        )

      summed = lax.fori_loop(
        0,
        shape.length // _BACKWARD_COLUMNS,
        step,
        jnp.zeros((ROWS, shape.head_size), jnp.float32),
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


def grad_of_keys(
  settings: Settings,
  parts: jax.Array,
  keys_BxRxT: jax.Array,
  words: jax.Array,
  grad_BxTxSxHxD: jax.Array,
  normaliser_BxHxT: jax.Array,
  common_BxHxT: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns the gradients of keys and values; 64 of them at a time."""
  shape = Shape(settings, parts, keys_BxRxT)

  def body(
    parts: Any, keys: Any, words: Any, grad: Any, normaliser: Any, common: Any,
    grad_key: Any, grad_value: Any, scratch: Any,
  ) -> None:  # fmt: skip
    tiles, query, of_out, vectors, of_rows, loaded, tile_loaded = scratch
    all_normal, all_common, *all_texts = vectors
    place = Place(shape, words)
    place.load_once(
      loaded,
      (place.part(parts, QUERY), query),
      (place.part(grad, ATTENDED), of_out),
      (place.vector(normaliser), all_normal),
      (place.vector(common), all_common),
      *place.texts(keys, all_texts),
    )
    key, value = (tiles.at[i, place.warpgroup] for i in range(2))
    for start in place.tiles():
      rows = pl.ds(start, ROWS)
      own_bias, *own_texts = place.own_rows(of_rows)
      place.load(
        tile_loaded.at[place.warpgroup],
        (place.part(parts, KEY, rows), key),
        (place.part(parts, VALUE, rows), value),
        (keys.at[place.row, BIAS, rows], own_bias),
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
          spread_rows(of_rows[0, place.warpgroup], tile),
          place.own_rows(of_rows)[1:],
          [texts.at[columns] for texts in all_texts],
        )
        probs = jnp.exp(logits - spread_columns(all_normal[columns], tile))
        kept = place.drop(probs, start, first, queries_are_rows=False)
        of_value = of_value + shape.product(
          kept.astype(shape.dtype), of_out.at[columns]
        )
        grads = shape.product(value, of_out.at[columns], transposed=True)
        grads = place.drop(grads, start, first, queries_are_rows=False)
        grads = probs * (grads - spread_columns(all_common[columns], tile))
        of_key = of_key + shape.product(
          grads.astype(shape.dtype), query.at[columns]
        )
        return of_key, of_value

      zeros = jnp.zeros((ROWS, shape.head_size), jnp.float32)
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
