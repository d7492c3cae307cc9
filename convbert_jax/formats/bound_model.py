"""A model that holds its parameters, for use without Flax."""

import functools
import inspect
import os
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from convbert_jax import files
from convbert_jax.data import encode_options
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.formats import call_inputs, folders, registry
from convbert_jax.formats.load import save_networks
from convbert_jax.formats.pretrained import Pretrained, read_tokenizer
from convbert_jax.model.choice_head import ConvBertForMultipleChoice
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel, Options
from convbert_jax.model.heads import ConvBertForMaskedLM, ConvBertForPreTraining
from convbert_jax.model.layers import truncated_normal
from convbert_jax.model.position_kinds import POSITION_KINDS
from convbert_jax.model.task_heads import (
  ConvBertForSequenceClassification,
  ConvBertForTokenClassification,
  inferred_problem,
)
from convbert_jax.ops import lookup, losses

# What counts the rows of the table that ids are looked up in.
_ROWS = {
  "input_ids": "vocab_size",
  "token_type_ids": "type_vocab_size",
  "position_ids": "max_position_embeddings",
}
_FLAGS = ("output_hidden_states", "output_attentions", "output_conv_kernels")
# Set by the call itself, or no arrays of inputs.
_OWN = ("deterministic", "ids_in_range", "packing")
_ENCODER = "convbert/"
_WORDS = "embeddings/word_embeddings"
# Of a language model: a row, or a number, for each token.
_OUTPUT_MAP = "output_map"
_PER_TOKEN = (_OUTPUT_MAP, "output_bias")

Arrays = dict[str, Any]


class BoundModel:
  """A module and its parameters; called with arrays, it runs compiled.

  Every shape of the inputs is compiled once. Values are checked before: ids,
  segments, positions and labels out of range are refused. In a compiled
  function of the caller, where they cannot be seen, ids give NaN.

  Attributes:
    module: the Flax module; `module.apply({"params": params}, ...)` is the pure
      function of the parameters, for gradients.
    params: its parameters, arrays of JAX. To be replaced by trained ones.
    tokenizer: encodes its text; None if none stood beside the model.

  Example:
    model = ConvBertForSequenceClassification.from_pretrained("folder")
    batch = model.tokenizer(["A text.", "Another text."], padding=True)
    model(**batch).logits
  """

  def __init__(
    self,
    module: nn.Module,
    params: Mapping[str, Any],
    tokenizer: ConvBertTokenizer | None = None,
  ) -> None:
    self.module = module
    self.params = jax.tree.map(jnp.asarray, nn.unbox(dict(params)))
    self.tokenizer = tokenizer

  @property
  def config(self) -> ConvBertConfig:
    """The config of encoder and head."""
    return self.module.config

  def __call__(
    self,
    *given: Any,
    training: bool = False,
    dropout_key: jax.Array | None = None,
    return_dict: bool | None = None,
    **inputs: Any,
  ) -> Any:
    """Runs the model.

    Args:
      *given: inputs in the order input_ids, attention_mask, token_type_ids,
        position_ids, head_mask, inputs_embeds; or one list of them; or one
        mapping by name.
      training: drop out; needs a `dropout_key`.
      dropout_key: a random key.
      return_dict: False for a tuple, see `Output.to_tuple`; None asks the
        config.
      **inputs: by name, arrays or lists; those of the module's call. None is as
        if not given.

    Returns:
      The output of the module.

    Raises:
      UserError: as the module, for an unknown name, for an input that is given
        twice or is empty, or for values out of range.
    """
    found = call_inputs.by_name(given, inputs)
    self._check_names(found)
    call_inputs.check_dropout(training, dropout_key)
    flags = tuple(
      (name, bool(found.pop(name))) for name in _FLAGS if name in found
    )
    arrays = {name: call_inputs.as_array(name, x) for name, x in found.items()}
    ids_in_range = self._check_values(arrays)
    output = _run(
      self.module,
      (*flags, ("ids_in_range", ids_in_range)),
      self.params,
      arrays,
      dropout_key,
    )
    if return_dict is None:
      return_dict = self.config.return_dict
    return output if return_dict else output.to_tuple()

  def save_pretrained(self, target: str | os.PathLike[str]) -> None:
    """Writes model, config and tokenizer to a folder.

    Args:
      target: absent, empty, or with the files of a tokenizer, which stay, and
        of a config alone; transformers' format, or "FORMAT:FOLDER" of another,
        see `formats.load`.

    Raises:
      UserError: if the folder holds anything else, its tokenizer has more
        tokens than the model, or the format has no such model; "orbax:FOLDER"
        takes every model.
    """
    target = files.named_path(target, "the model's folder")
    kind, path = registry.split_format(target)
    kind = kind or "hf"
    if kind == "hf" and isinstance(self.module, ConvBertForPreTraining):
      raise UserError(
        "transformers has no ConvBertForPreTraining; save it to"
        f" 'orbax:{path}', or its encoder alone"
      )
    params = jax.device_get(self.params)
    tokenizer = self.tokenizer
    with folders.joined(path) as place:
      if place != path and (kept := read_tokenizer(path, self.config)):
        tokenizer = kept
      found = Pretrained(self.module, params, tokenizer)
      save_networks(f"{kind}:{place}", {"": found})

  def get_input_embeddings(self) -> jax.Array:
    """Returns the word table, [V, E]."""
    return self._flat()[self._words]

  def set_input_embeddings(self, table_VxE: jax.Array) -> None:
    """Puts another word table in its place.

    Raises:
      UserError: if it has another shape; `resize_token_embeddings` changes the
        number of rows.
    """
    shape = self.get_input_embeddings().shape
    if jnp.shape(table_VxE) != shape:
      raise UserError(
        f"a word table of shape {jnp.shape(table_VxE)}: give {shape}, or change"
        " the number of rows with resize_token_embeddings"
      )
    self._put({self._words: jnp.asarray(table_VxE, jnp.float32)})

  def get_output_embeddings(self) -> jax.Array | None:
    """Returns the output map of a language model, [V, E]; None for others."""
    if not isinstance(self.module, ConvBertForMaskedLM):
      return None
    if self.config.tie_word_embeddings:
      return self.get_input_embeddings()
    return self._flat()[_OUTPUT_MAP]

  def resize_token_embeddings(
    self,
    num_tokens: int,
    *,
    pad_to_multiple_of: int | None = None,
    seed: int = 0,
  ) -> jax.Array:
    """Makes the vocabulary smaller or larger, at its end.

    Args:
      num_tokens: rows of the word table; in a language model also of the output
        map and its bias.
      pad_to_multiple_of: makes it the next multiple of this.
      seed: of new rows, which start as in a new model.

    Returns:
      The new word table.

    Raises:
      UserError: if no tokens are left, or a number is no whole one.
    """
    if pad_to_multiple_of is not None:
      encode_options.check_multiple(pad_to_multiple_of)
      num_tokens += -num_tokens % pad_to_multiple_of
    self.module = self.module.clone(
      config=self.config.replace(vocab_size=num_tokens)
    )
    changed = {}
    for name, array in self._flat().items():
      if name in (self._words, *_PER_TOKEN):
        wanted = (num_tokens, *array.shape[1:])
        new = jnp.zeros(wanted)
        if array.ndim == 2:
          draw = truncated_normal(self.config.initializer_range)
          new = draw(jax.random.key(seed), wanted)
        kept = min(num_tokens, len(array))
        changed[name] = new.at[:kept].set(array[:kept])
    self._put(changed)
    return self.get_input_embeddings()

  @property
  def _words(self) -> str:
    is_bare = isinstance(self.module, ConvBertModel)
    return _WORDS if is_bare else _ENCODER + _WORDS

  def _flat(self) -> Arrays:
    return flax.traverse_util.flatten_dict(self.params, sep="/")

  def _put(self, changed: Arrays) -> None:
    flat = {**self._flat(), **changed}
    self.params = flax.traverse_util.unflatten_dict(flat, sep="/")

  def _check_names(self, given: Iterable[str]) -> None:
    taken = inspect.signature(type(self.module).__call__).parameters
    valid = {*taken, *Options.__annotations__} - {"self", "options", *_OWN}
    for name in given:
      if name not in valid:
        raise unknown_name("input", name, valid)

  def _check_values(self, arrays: Mapping[str, Any]) -> bool:
    """Refuses ids and labels out of range; says whether it saw all ids."""
    seen = True
    for name in _ROWS.keys() & arrays.keys():
      if isinstance(arrays[name], jax.core.Tracer):
        seen = False
      elif name != "position_ids" or self._has_position_table:
        rows = getattr(self.config, _ROWS[name])
        lookup.check_ids(arrays[name], rows, f"{name}, {_ROWS[name]}")
    words = arrays.get("input_ids", arrays.get("inputs_embeds"))
    positions = arrays.get("positions")
    if not (
      words is None
      or positions is None
      or isinstance(positions, jax.core.Tracer)
    ):
      lookup.check_ids(positions, words.shape[1], "positions, length")
    num_classes = _num_classes(self.module, arrays)
    if num_classes is not None:
      losses.check_classes(arrays["labels"], num_classes)
    return seen

  @property
  def _has_position_table(self) -> bool:
    return POSITION_KINDS[self.config.position_type].has_table


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(
  module: nn.Module,
  flags: tuple[tuple[str, bool], ...],
  params: Any,
  arrays: Arrays,
  dropout_key: jax.Array | None,
) -> Any:
  return module.apply(
    {"params": params},
    **arrays,
    **dict(flags),
    deterministic=dropout_key is None,
    rngs=None if dropout_key is None else {"dropout": dropout_key},
  )


def _num_classes(module: nn.Module, arrays: Mapping[str, Any]) -> int | None:
  """Returns how many classes the labels may name; None if they are none."""
  if "labels" not in arrays:
    return None
  if isinstance(module, ConvBertForMaskedLM):
    return module.config.vocab_size
  if isinstance(module, ConvBertForTokenClassification):
    return module.num_labels
  if isinstance(module, ConvBertForMultipleChoice):
    words = arrays.get("input_ids", arrays.get("inputs_embeds"))
    return None if words is None else words.shape[1]
  if isinstance(module, ConvBertForSequenceClassification):
    num_labels, labels = module.num_labels, arrays["labels"]
    kind = module.problem_type or inferred_problem(num_labels, labels)
    return num_labels if kind == "single_label_classification" else None
  return None
