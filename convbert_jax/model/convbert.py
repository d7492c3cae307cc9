"""The encoder with checked inputs and named outputs."""

from typing import NamedTuple, TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp

from convbert_jax import errors
from convbert_jax.model import layers
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.embeddings import Embeddings
from convbert_jax.model.encoder import Encoder
from convbert_jax.model.id_inputs import check_id_inputs
from convbert_jax.model.loadable import Loadable
from convbert_jax.model.outputs import ModelOutput
from convbert_jax.model.segments import check_alike
from convbert_jax.ops.attention import real_positions
from convbert_jax.ops.packing import (
  Packing,
  packed,
  positions_of,
  unpacked,
)


class Options(TypedDict, total=False):
  """Keyword arguments of `ConvBertModel`, which every head passes on."""

  position_ids: jax.Array | None
  segment_ids: jax.Array | None
  packing: Packing | None
  inputs_embeds: jax.Array | None
  head_mask: jax.Array | None
  ids_in_range: bool
  deterministic: bool
  output_hidden_states: bool | None
  output_attentions: bool | None
  output_conv_kernels: bool


class _Inputs(NamedTuple):
  """What is encoded, a row for each text, or several in a row."""

  words: jax.Array
  attention_mask: jax.Array
  token_type_ids: jax.Array
  position_ids: jax.Array | None
  segment_ids: jax.Array | None


class ConvBertModel(nn.Module, Loadable):
  """The encoder: embeddings, optional projection, layers.

  Example:
    model = ConvBertModel(ConvBertConfig())
    params = model.init(jax.random.key(0), input_ids)["params"]
    output = model.apply({"params": params}, input_ids)
    output.last_hidden_state[:, 0]  # the pooled output: the raw [CLS] vector
  """

  config: ConvBertConfig

  def setup(self) -> None:
    config = self.config
    self.embeddings = Embeddings(config)
    if config.embedding_size != config.hidden_size:
      self.embeddings_project = layers.embeddings_project(config)
    self.encoder = Encoder(config)

  def __call__(
    self,
    input_ids: jax.Array | None = None,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    position_ids: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    packing: Packing | None = None,
    inputs_embeds: jax.Array | None = None,
    head_mask: jax.Array | None = None,
    ids_in_range: bool = False,
    deterministic: bool = True,
    output_hidden_states: bool | None = None,
    output_attentions: bool | None = None,
    output_conv_kernels: bool = False,
  ) -> ModelOutput:
    """Encodes a batch.

    Args:
      input_ids: [B, T], `T` up to `max_position_embeddings`.
      attention_mask: [B, T], 1 for real positions; all of them if None. Or
        [B, T, T], 1 where the token of a row may attend to that of a column,
        for `conv_type` "none" alone: convolutions see all their window. A row
        without a 1, of either, attends to everything. Heads that need to know
        which positions are real take the diagonal.
      token_type_ids: [B, T] segment of each position; zeros if None.
      position_ids: [B, T], or [1, T] for all rows, positions, rows of the table
        if there is one; 0 to T - 1 if None, or from 0 in each segment.
      segment_ids: [B, T] which of several texts in a row each position belongs
        to, a number for each text, whose positions stand together. Texts see
        nothing of each other, and their outputs are those of each alone. One
        text a row if None.
      packing: how to compute with fewer rows that hold several texts each. The
        outputs are those of each text without padding, and zero at padding,
        which is on the right.
      inputs_embeds: [B, T, E] vectors in place of `input_ids`.
      head_mask: [H] for all layers, or [L, H]; multiplied with the attention
        probabilities of the kept heads, so that 0 removes a head.
      ids_in_range: the caller knows that all ids, positions and segments are
        rows of their tables. Otherwise they are looked at, and in a compiled
        function, where that cannot be, give NaN if they are not.
      deterministic: no dropout; otherwise `rngs={"dropout": key}` is needed.
      output_hidden_states: return `hidden_states`; None asks the config.
      output_attentions: return `attentions`, likewise.
      output_conv_kernels: return `conv_kernels`, of the layers that have any.

    Returns:
      A `ModelOutput`.

    Raises:
      UserError: if the sequences are too long, if not exactly one of
        `input_ids` and `inputs_embeds` is given, if an input has another
        shape, if ids are no whole numbers, if a mask [B, T, T] meets
        convolution heads, if convolution kernels are asked for and there are
        none, if attentions of packed rows are, or, outside compiled functions,
        if an id is out of range.
    """
    if output_hidden_states is None:
      output_hidden_states = self.config.output_hidden_states
    if output_attentions is None:
      output_attentions = self.config.output_attentions
    words = self._checked_words(input_ids, inputs_embeds)
    if output_conv_kernels and not self.config.has_conv_kernels:
      raise errors.UserError(
        f"conv_type={self.config.conv_type!r} has no convolution kernels; "
        "leave output_conv_kernels off"
      )
    batch_and_length = words.shape[:2]
    check_id_inputs(
      batch_and_length,
      input_ids=input_ids,
      token_type_ids=token_type_ids,
      position_ids=position_ids,
      segment_ids=segment_ids,
    )
    inputs = _Inputs(
      words,
      self._checked_mask(attention_mask, batch_and_length),
      _zeros(batch_and_length) if token_type_ids is None else token_type_ids,
      position_ids,
      segment_ids,
    )
    if packing is not None:
      _check_packable(inputs, packing, output_attentions=output_attentions)
      inputs = _packed_inputs(inputs, packing)
    elif segment_ids is not None and position_ids is None:
      real_BxT = real_positions(inputs.attention_mask)
      inputs = inputs._replace(position_ids=positions_of(segment_ids, real_BxT))
    output = self._encode(
      inputs,
      self._head_mask_of_layers(head_mask),
      ids_in_range=ids_in_range,
      deterministic=deterministic,
      output_hidden_states=output_hidden_states,
      output_attentions=output_attentions,
      output_conv_kernels=output_conv_kernels,
    )
    if packing is None:
      return output
    return jax.tree.map(lambda array: unpacked(array, packing), output)

  def _encode(
    self,
    inputs: _Inputs,
    head_mask_LxH: jax.Array | None,
    *,
    ids_in_range: bool,
    deterministic: bool,
    output_hidden_states: bool,
    output_attentions: bool,
    output_conv_kernels: bool,
  ) -> ModelOutput:
    """Encodes what is checked."""
    embedded = self.embeddings(
      inputs.words,
      inputs.token_type_ids,
      inputs.position_ids,
      deterministic=deterministic,
      ids_in_range=ids_in_range,
    )
    if self.config.embedding_size != self.config.hidden_size:
      embedded = self.embeddings_project(embedded)
    embedded = embedded.astype(self.config.dtype)
    last, per_layer = self.encoder(
      embedded,
      inputs.attention_mask,
      head_mask_LxH,
      inputs.position_ids,
      inputs.segment_ids,
      deterministic=deterministic,
      output_hidden_states=output_hidden_states,
      output_attentions=output_attentions,
      output_conv_kernels=output_conv_kernels,
    )
    states = per_layer["hidden_states"]
    attentions = per_layer["attentions"]
    kernels = per_layer["conv_kernels"]
    return ModelOutput(
      last_hidden_state=last,
      hidden_states=(embedded, *states) if output_hidden_states else None,
      attentions=tuple(attentions) if output_attentions else None,
      conv_kernels=tuple(kernels) if output_conv_kernels else None,
    )

  def _checked_words(
    self, input_ids: jax.Array | None, inputs_embeds: jax.Array | None
  ) -> jax.Array:
    """Returns whichever is given, [B, T] or [B, T, E]."""
    if (input_ids is None) == (inputs_embeds is None):
      raise errors.UserError("give either input_ids or inputs_embeds")
    if inputs_embeds is None:
      if input_ids.ndim != 2:
        raise errors.UserError(
          f"input_ids of shape {input_ids.shape}: give [batch, length]"
        )
      return input_ids
    width = self.config.embedding_size
    if inputs_embeds.ndim != 3 or inputs_embeds.shape[-1] != width:
      raise errors.UserError(
        f"inputs_embeds of shape {inputs_embeds.shape}: give [batch, length,"
        f" {width}], the last being embedding_size, not hidden_size"
      )
    return inputs_embeds

  def _checked_mask(
    self, mask: jax.Array | None, batch_and_length: tuple[int, int]
  ) -> jax.Array:
    """Returns the mask, [B, T] or [B, T, T]."""
    if mask is None:
      return jnp.ones(batch_and_length, jnp.int32)
    batch, length = batch_and_length
    if mask.shape not in ((batch, length), (batch, length, length)):
      raise errors.UserError(
        f"attention_mask of shape {mask.shape}: give [batch, length]"
        f" {(batch, length)}, or [batch, length, length]"
      )
    if mask.ndim == 3 and self.config.has_conv:
      raise errors.UserError(
        f"attention_mask of shape {mask.shape}: the convolution heads of"
        f" conv_type={self.config.conv_type!r} cannot respect a mask for each"
        " query; give [batch, length], or take conv_type='none'"
      )
    return mask

  def _head_mask_of_layers(
    self, head_mask: jax.Array | None
  ) -> jax.Array | None:
    """Returns the head mask as [L, H]."""
    if head_mask is None:
      return None
    check_alike(self.config, "a head_mask is")
    shape = (self.config.num_hidden_layers, self.config.num_heads_kept)
    if head_mask.shape not in (shape, shape[1:]):
      raise errors.UserError(
        f"head_mask of shape {head_mask.shape}: give [heads] {shape[1:]} or"
        f" [layers, heads] {shape}, for the attention heads that are kept"
      )
    return jnp.broadcast_to(head_mask, shape)


def _check_packable(
  inputs: _Inputs, packing: Packing, *, output_attentions: bool
) -> None:
  """Refuses what packed rows have not, or not for each text."""
  (batch, length), places = inputs.words.shape[:2], packing.places.shape
  if (places[0] * places[1], places[2]) != (batch, length):
    raise errors.UserError(
      f"a packing of {places[0] * places[1]} texts of {places[2]} positions for"
      f" a batch of {batch} of {length}: plan it for this batch"
    )
  if inputs.attention_mask.ndim == 3:
    raise errors.UserError(
      f"attention_mask of shape {inputs.attention_mask.shape}: with packing,"
      " give [batch, length]"
    )
  if inputs.segment_ids is not None:
    raise errors.UserError(
      "packing takes a text from each row: leave segment_ids out"
    )
  if output_attentions:
    raise errors.UserError(
      "packed rows have no attentions of single texts; leave packing or"
      " output_attentions out"
    )


def _packed_inputs(inputs: _Inputs, packing: Packing) -> _Inputs:
  """Returns inputs with several texts in a row, as segments."""
  shape = inputs.words.shape[:2]
  positions = inputs.position_ids
  if positions is None:
    positions = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  return jax.tree.map(
    lambda array: packed(array, packing),
    inputs._replace(
      position_ids=jnp.broadcast_to(positions, shape),
      # 0 is what lies between texts.
      segment_ids=1 + jax.lax.broadcasted_iota(jnp.int32, shape, 0),
    ),
  )


def _zeros(shape: tuple[int, int]) -> jax.Array:
  return jnp.zeros(shape, jnp.int32)
