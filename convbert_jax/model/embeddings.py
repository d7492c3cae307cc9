"""Token, position and segment embeddings."""

import flax.linen as nn
import jax

from convbert_jax.model import layers
from convbert_jax.model.config import ConvBertConfig, check_sequence_length
from convbert_jax.model.position_kinds import POSITION_KINDS
from convbert_jax.ops import lookup, numerics, partitioning


class Embeddings(nn.Module):
  """Sum of three tables, layer norm, dropout (reference: `embeddings` scope).

  Padding is an ordinary row of the word table, and positions count from zero
  whatever the mask says. The position table is there if the kind of positions
  has one.
  """

  config: ConvBertConfig

  def setup(self) -> None:
    config = self.config
    init = layers.truncated_normal(config.initializer_range)
    width = config.embedding_size
    self.word_embeddings = layers.table(
      self, "word_embeddings", (config.vocab_size, width), ("vocab", "embed"),
      init, config.dtype,
    )  # fmt: skip
    if POSITION_KINDS[config.position_type].has_table:
      self.position_embeddings = layers.table(
        self, "position_embeddings", (config.max_position_embeddings, width),
        (None, "embed"), init,
      )  # fmt: skip
    self.token_type_embeddings = layers.table(
      self, "token_type_embeddings", (config.type_vocab_size, width),
      (None, "embed"), init,
    )  # fmt: skip
    self.layer_norm = layers.layer_norm(config, axis="embed")
    self.dropout = layers.Dropout(config.hidden_dropout_prob)

  def __call__(
    self,
    words: jax.Array,
    token_type_ids_BxT: jax.Array,
    position_ids_BxT: jax.Array | None,
    *,
    deterministic: bool,
    ids_in_range: bool = False,
  ) -> jax.Array:
    """Returns the embeddings [B, T, E].

    Args:
      words: [B, T] ids, or [B, T, E] in place of the word table's rows.
      token_type_ids_BxT: segments.
      position_ids_BxT: rows of the position table, if there is one; in order
        if None.
      deterministic: no dropout.
      ids_in_range: see `ConvBertModel`.

    Raises:
      UserError: if sequences in order are too long, or for an id out of range.
    """
    length, config = words.shape[1], self.config
    if position_ids_BxT is None:
      check_sequence_length(config, length)
    checked = _unchecked if ids_in_range else lookup.in_range
    if words.ndim == 2:
      words = checked(
        lookup.rows(self.word_embeddings[None], words),
        words,
        config.vocab_size,
        "input_ids, vocab_size",
      )
    positions = self._positions(position_ids_BxT, length)
    if positions is not None and position_ids_BxT is not None:
      positions = checked(
        positions,
        position_ids_BxT,
        config.max_position_embeddings,
        "position_ids, max_position_embeddings",
      )
    types_BxTxE = checked(
      self.token_type_embeddings[token_type_ids_BxT],
      token_type_ids_BxT,
      config.type_vocab_size,
      "token_type_ids, type_vocab_size",
    )
    summed_BxTxE = numerics.precise(words) + types_BxTxE
    if positions is not None:
      summed_BxTxE += positions
    summed_BxTxE = partitioning.constrain(summed_BxTxE, "batch", None, None)
    return self.dropout(
      self.layer_norm(summed_BxTxE), deterministic=deterministic
    )

  def _positions(
    self, position_ids_BxT: jax.Array | None, length: int
  ) -> jax.Array | None:
    """Returns rows of the position table, [B, T, E] or [1, T, E], if any."""
    if not POSITION_KINDS[self.config.position_type].has_table:
      return None
    if position_ids_BxT is None:
      return self.position_embeddings[None, :length]
    return self.position_embeddings[position_ids_BxT]


def _unchecked(rows_BxTxE: jax.Array, *_: object) -> jax.Array:
  return rows_BxTxE
