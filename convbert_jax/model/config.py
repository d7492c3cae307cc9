"""The model's configuration and the head geometry that follows from it.

Letters in the shape suffixes of array names (`query_BxTxHxD`) in `ops/`,
`model/`, `objective/` and `tasks/`:

  B batch            H heads kept       P predicted (masked) slots
  T sequence length  D head size        C classes, or choices
  E embedding width  A = H * D          L layers
  V vocabulary       K kernel width     J beams of a search
  M model width      F inner width      N several axes as one
  G groups           I width of an input, O of an output
  S sets of heads side by side: attention heads, convolution heads

Letters side by side are multiplied: `HK` is H * K.
"""

import dataclasses
from typing import Any, Self

import jax
import numpy as np

from convbert_jax import errors, ranges
from convbert_jax.model import common_fields
from convbert_jax.model.common_fields import CommonFields
from convbert_jax.model.config_files import ConfigFiles
from convbert_jax.model.conv_kinds import CONV_KINDS
from convbert_jax.model.position_kinds import POSITION_KINDS
from convbert_jax.ops import activations, partitioning
from convbert_jax.ops.kernels.choice import KERNELS

HEAD_SIZE_RULES = ("tf1", "hf")
CONV_KERNEL_INITS = ("uniform", "spread")
CONV_QUERIES = ("attention", "own")
DTYPES = ("float32", "bfloat16", "float64")
REMAT_POLICIES = ("none", "elementwise", "convolutions", "dots", "full")


@dataclasses.dataclass(frozen=True)
class ConvBertConfig(CommonFields, ConfigFiles):
  """Everything that shapes a ConvBERT; the defaults are ConvBERT-base.

  Special ids, labels and what heads take beside are in `CommonFields`.

  Attributes:
    vocab_size: rows of the word table.
    embedding_size: width of the tables; projected to `hidden_size` if unequal.
    hidden_size: width of every layer's input and output.
    num_hidden_layers: encoder layers.
    num_attention_heads: heads before the ratio removes some of them.
    intermediate_size: inner width of the feed-forward part.
    head_ratio: heads configured for each attention head kept; convolution
      heads replace the others.
    conv_kernel_size: taps of the convolutions, odd.
    num_groups: blocks of the grouped feed-forward maps; 1 is a plain map.
    conv_type: kind of the convolution heads, a row of `conv_kinds.CONV_KINDS`;
      "none" for attention heads alone.
    conv_query: which query the kernels of the convolution are made with:
      "attention", that of the attention heads, as in the original; "own", a
      projection for it alone.
    conv_layers: the layers that have convolution heads, counted from 0; all if
      empty, as in the original. The others have all `num_attention_heads` as
      attention heads and no convolution, as in BERT.
    head_size_rule: "tf1" takes the head size from the configured heads as the
      original does, "hf" from the kept ones as transformers does. They agree
      for a head ratio of 2 and two heads or more.
    max_position_embeddings: longest sequence, in tokens.
    position_type: how the order of tokens is known, a row of
      `position_kinds.POSITION_KINDS`: "absolute", a table, as in the original;
      "rotary", no table, queries and keys of the attention heads are turned.
    type_vocab_size: number of segment types.
    hidden_act: activation of the feed-forward part and of the heads, one of
      `activations.BY_NAME`.
    hidden_dropout_prob: dropout after embeddings and after output maps.
    attention_probs_dropout_prob: dropout on attention probabilities.
    initializer_range: standard deviation of the initial normal, before it is
      cut at two of them.
    conv_kernel_init: what the kernels of the convolution heads are at first:
      "uniform", as in the original, an average over the window; "spread", each
      head with half its weight on a neighbour of its own.
    layer_norm_eps: added to the variance in every layer norm.
    mask_padding_in_conv: zero padded positions before the convolutions, so
      that no result depends on padding. The originals do not.
    dtype: of activations and products, a name or a dtype, which is kept by its
      name. Parameters stay float32, and so do the statistics of softmax and
      layer norm ("float64" needs jax_enable_x64 and serves numerical checks).
    remat: what the backward pass recomputes: "none"; "elementwise", whatever
      is cheaper to recompute than to keep; "convolutions", depthwise
      convolutions too; "dots", all but the products with weights; "full", whole
      layers.
    scan_unroll: layers per iteration of the scan over layers. All at once need
      no stack of what the backward pass reads, which moves a third less memory
      on GPUs, and take several times as long to compile.
    kernels: of `ops/kernels`: "fused", where the device, the shapes and the
      options are those of one; "hopper_attention" or "hopper_products", that
      one alone; "auto", only on devices that it has been tried on; "reference",
      none.
  """

  vocab_size: int = 30522
  embedding_size: int = 768
  hidden_size: int = 768
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  intermediate_size: int = 3072
  head_ratio: int = 2
  conv_kernel_size: int = 9
  num_groups: int = 1
  conv_type: str = "span_dynamic"
  conv_query: str = "attention"
  conv_layers: tuple[int, ...] = ()
  head_size_rule: str = "tf1"
  max_position_embeddings: int = 512
  position_type: str = "absolute"
  type_vocab_size: int = 2
  hidden_act: str = "gelu"
  hidden_dropout_prob: float = 0.1
  attention_probs_dropout_prob: float = 0.1
  initializer_range: float = 0.02
  conv_kernel_init: str = "uniform"
  layer_norm_eps: float = 1e-12
  mask_padding_in_conv: bool = False
  dtype: str = "float32"
  remat: str = "none"
  scan_unroll: int = 1
  kernels: str = "auto"

  def __new__(cls, *_: Any, **given: Any) -> Self:
    known = {field.name for field in dataclasses.fields(cls)}
    for name in given.keys() - known:
      raise errors.unknown_option("config field", name, known)
    return super().__new__(cls)

  def __post_init__(self) -> None:
    # Of JSON, a list.
    object.__setattr__(self, "conv_layers", tuple(self.conv_layers))
    object.__setattr__(self, "dtype", _dtype_name(self.dtype))
    self.complete_labels()
    self.check_common_fields()
    self._check_choices()
    ranges.check("model", vars(self), prefix="")
    self._check_geometry()
    self._check_conv_layers()

  @property
  def num_heads_kept(self) -> int:
    """Attention heads left by the ratio, at least one (`H`)."""
    return max(1, self.num_attention_heads // self.head_ratio)

  @property
  def head_size(self) -> int:
    """Width of one head, attention or convolution (`D`)."""
    if self.head_size_rule == "tf1":
      return self.hidden_size // self.num_attention_heads
    return self.hidden_size // self.num_heads_kept // 2

  @property
  def heads_axis(self) -> str:
    """Logical axis of all heads side by side, split between heads alone."""
    return partitioning.blocks("heads", self.head_size)

  @property
  def all_head_size(self) -> int:
    """Width of all attention heads together, or all convolution heads (`A`)."""
    return self.num_heads_kept * self.head_size

  @property
  def has_conv(self) -> bool:
    """Whether there are convolution heads."""
    return CONV_KINDS[self.conv_type].heads is not None

  @property
  def has_conv_kernels(self) -> bool:
    """Whether the convolution heads sum values that kernels weight."""
    return self.has_conv and CONV_KINDS[self.conv_type].sums_values

  @property
  def projections(self) -> tuple[str, ...]:
    """Names of a layer's maps from its input to heads, of equal width."""
    names: tuple[str, ...] = ("query", "key", "value")
    if self.has_conv_kernels:
      # Not the attention's value: the convolution has a projection of its own.
      names += ("conv_value",)
    if self.conv_query == "own":
      names += ("conv_query",)
    return names

  @property
  def mixed_size(self) -> int:
    """Width of all heads of both kinds together."""
    return self.all_head_size * (2 if self.has_conv else 1)

  def replace(self, **changes: Any) -> Self:
    """Returns a copy with `changes`, checked like a new one.

    New labels take the place of all that is said of the old ones.
    """
    return dataclasses.replace(self, **common_fields.with_new_labels(changes))

  def without_conv(self) -> Self:
    """Returns a config with every head an attention head, as in BERT."""
    return self.replace(
      conv_type="none", conv_query="attention", conv_layers=(), head_ratio=1,
      head_size_rule="tf1",
    )  # fmt: skip

  def _check_choices(self) -> None:
    for field, valid in (
      ("conv_type", CONV_KINDS),
      ("conv_query", CONV_QUERIES),
      ("head_size_rule", HEAD_SIZE_RULES),
      ("conv_kernel_init", CONV_KERNEL_INITS),
      ("position_type", POSITION_KINDS),
      ("hidden_act", activations.BY_NAME),
      ("dtype", DTYPES),
      ("remat", REMAT_POLICIES),
      ("kernels", KERNELS),
    ):
      value = getattr(self, field)
      if not isinstance(value, str) or value not in valid:
        raise errors.unknown_name(field, value, valid)
    if self.conv_query == "own" and not CONV_KINDS[self.conv_type].reads_query:
      raise errors.UserError(
        f"conv_query='own' with conv_type={self.conv_type!r}: no kernel is made"
        " with it; leave conv_query='attention'"
      )

  def _check_geometry(self) -> None:
    if self.conv_kernel_size % 2 == 0:
      raise errors.UserError(
        f"conv_kernel_size={self.conv_kernel_size} must be odd, so that the "
        f"window has a centre; take {self.conv_kernel_size + 1}"
      )
    heads, ratio = self.num_attention_heads, self.head_ratio
    # Transformers rounds down.
    if heads >= ratio and heads % ratio and self.head_size_rule == "tf1":
      near = [r for r in range(1, heads + 1) if heads % r == 0]
      raise errors.UserError(
        f"head_ratio={ratio} must divide num_attention_heads={heads} (or "
        f"exceed it, which keeps one head); take one of {near}"
      )
    if self.hidden_size < heads or self.head_size < 1:
      raise errors.UserError(
        f"hidden_size={self.hidden_size} leaves no width for "
        f"num_attention_heads={heads}; take fewer heads or a larger width"
      )
    multiple = POSITION_KINDS[self.position_type].head_size_multiple
    if self.head_size % multiple:
      raise errors.UserError(
        f"position_type={self.position_type!r} needs a head size that is a"
        f" multiple of {multiple}, and hidden_size={self.hidden_size} with"
        f" num_attention_heads={heads} gives {self.head_size}; change one of"
        " them"
      )
    for field in ("hidden_size", "intermediate_size"):
      if getattr(self, field) % self.num_groups:
        raise errors.UserError(
          f"num_groups={self.num_groups} must divide "
          f"{field}={getattr(self, field)}; change one of them"
        )

  def _check_conv_layers(self) -> None:
    given, last = self.conv_layers, self.num_hidden_layers - 1
    if not given:
      return
    if list(given) != sorted({*given} & {*range(last + 1)}):
      raise errors.UserError(
        f"conv_layers={given} must be layers from 0 to {last}, in order and"
        " each once; () means all of them"
      )
    if not self.has_conv:
      raise errors.UserError(
        f"conv_layers={given} with conv_type={self.conv_type!r}: there are no"
        " convolution heads to place; leave conv_layers=()"
      )
    # The layers without them must be possible too.
    self.without_conv()


def _dtype_name(dtype: Any) -> Any:
  """Returns the name of a dtype; what is none, a name too, as it is."""
  is_dtype = isinstance(dtype, type | np.dtype) or hasattr(dtype, "dtype")
  try:
    return np.dtype(dtype).name if is_dtype else dtype
  except TypeError:
    return dtype


def check_tensor_axis(config: ConvBertConfig, size: int) -> None:
  """Refuses a mesh that would cut heads.

  Args:
    config: of the model.
    size: of the mesh's axis `tensor`.

  Raises:
    UserError: if it does not divide the kept heads.
  """
  kept = config.num_heads_kept
  if kept % size:
    fitting = [n for n in range(1, kept + 1) if kept % n == 0]
    raise errors.UserError(
      f"mesh.tensor={size} must divide the {kept} heads that"
      f" head_ratio={config.head_ratio} leaves of num_attention_heads="
      f"{config.num_attention_heads}; take one of {fitting}"
    )


def check_dtype(config: ConvBertConfig) -> None:
  """Refuses float64 where JAX would compute in float32 without a word.

  Args:
    config: of a model that is about to compute.

  Raises:
    UserError: if 64 bits are asked for and not enabled.
  """
  if config.dtype == "float64" and not jax.config.jax_enable_x64:
    raise errors.UserError(
      "dtype=float64 needs 64 bits: set JAX_ENABLE_X64=1, or take float32"
    )


def check_sequence_length(config: ConvBertConfig, length: int) -> None:
  """Refuses sequences of more tokens than there are positions.

  Args:
    config: of the model that will read them.
    length: of the padded sequences, in tokens.

  Raises:
    UserError: if `length` exceeds `max_position_embeddings`.
  """
  if length > config.max_position_embeddings:
    raise errors.UserError(
      f"sequences of {length} tokens exceed max_position_embeddings="
      f"{config.max_position_embeddings}; shorten them or raise that field"
    )


def check_segments(config: ConvBertConfig, num_segments: int) -> None:
  """Refuses examples of more segments than there are segment types.

  Args:
    config: of the model that will read them.
    num_segments: of an example.

  Raises:
    UserError: if they exceed `type_vocab_size`.
  """
  if num_segments > config.type_vocab_size:
    raise errors.UserError(
      f"examples of {num_segments} segments exceed type_vocab_size="
      f"{config.type_vocab_size}; raise that field"
    )
