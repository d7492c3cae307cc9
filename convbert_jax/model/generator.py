"""The generator that goes with a discriminator: its config."""

from convbert_jax import errors, ranges
from convbert_jax.model.config import ConvBertConfig


def generator_config(
  config: ConvBertConfig,
  *,
  size_fraction: float,
  layers_fraction: float,
  tie_embeddings: bool = True,
) -> ConvBertConfig:
  """Returns the generator that goes with a discriminator.

  The generator is a smaller ConvBERT with the discriminator's kernel width,
  groups and head ratio, and at least one head (reference: get_generator_config
  of the original, which keeps the number of heads as a float; here it must
  come out whole). It has the discriminator's `conv_layers` if it is as deep,
  otherwise convolution heads in all layers.

  Args:
    config: the discriminator's.
    size_fraction: of the discriminator's width and heads.
    layers_fraction: of its layers.
    tie_embeddings: whether the generator reads the discriminator's tables;
      otherwise its own are as wide as its layers.

  Returns:
    The generator's configuration.

  Raises:
    UserError: if the fraction gives no whole number of heads, or a width
      that the other fields do not fit.
  """
  fractions = {
    "size_fraction": size_fraction,
    "layers_fraction": layers_fraction,
  }
  ranges.check("generator", fractions)
  heads = max(1.0, config.num_attention_heads * size_fraction)
  if abs(heads - round(heads)) > 1e-6:
    raise errors.UserError(
      f"generator.size_fraction={size_fraction} gives {heads:.4f} of "
      f"{config.num_attention_heads} heads; take a fraction that gives a whole "
      "number (a third is written 1/3 in a config file, not 0.3333)"
    )
  width = round(config.hidden_size * size_fraction)
  depth = max(1, round(config.num_hidden_layers * layers_fraction))
  is_as_deep = depth == config.num_hidden_layers
  return config.replace(
    conv_layers=config.conv_layers if is_as_deep else (),
    hidden_size=width,
    embedding_size=config.embedding_size if tie_embeddings else width,
    num_hidden_layers=depth,
    num_attention_heads=round(heads),
    intermediate_size=4 * width,
  )
