"""Token, position and segment embeddings."""

import flax.linen as nn
import jax

from convbert_jax.model import layers
from convbert_jax.model.config import ConvBertConfig, check_sequence_length
from convbert_jax.ops import lookup, numerics, partitioning


class Embeddings(nn.Module):
  """Sum of three tables, layer norm, dropout (reference: `embeddings` scope).

  Padding is an ordinary row of the word table, and positions count from zero
  whatever the mask says.
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
  ) -> jax.Array:
    """Returns the embeddings [B, T, E].

    Args:
      words: [B, T] ids, or [B, T, E] in place of the word table's rows.
      token_type_ids_BxT: segments.
      position_ids_BxT: rows of the position table; in order if None.
      deterministic: no dropout.
    """
    length = words.shape[1]
    check_sequence_length(self.config, length)
    if words.ndim == 2:
      words = lookup.rows(self.word_embeddings[None], words)
    if position_ids_BxT is None:
      positions = self.position_embeddings[None, :length]
    else:
      positions = self.position_embeddings[position_ids_BxT]
    types_BxTxE = self.token_type_embeddings[token_type_ids_BxT]
    summed_BxTxE = numerics.precise(words) + types_BxTxE + positions
    summed_BxTxE = partitioning.constrain(summed_BxTxE, "batch", None, None)
    return self.dropout(
      self.layer_norm(summed_BxTxE), deterministic=deterministic
    )
