"""Where every model class gets its parameters from."""

from typing import TYPE_CHECKING, Any

from convbert_jax.model.config import ConvBertConfig

if TYPE_CHECKING:
  from convbert_jax.formats.bound_model import BoundModel


class Loadable:
  """Makes a model class load its parameters; both are imported when called."""

  @classmethod
  def from_pretrained(
    cls,
    source: str,
    *,
    ignore_mismatched_sizes: bool = False,
    seed: int = 0,
    **changes: Any,
  ) -> "BoundModel":
    """Returns a model of this class with trained parameters; see `BoundModel`.

    A source without this head gives its encoder; the head is then new, and a
    warning says so. New heads are those of transformers.

    Args:
      source: a folder or a name, see `formats.load`.
      ignore_mismatched_sizes: start parameters afresh that have another shape
        there, as those of a head with another number of labels.
      seed: of parameters that start afresh.
      **changes: fields of the config or options of the class with other values,
        as `num_labels=3`.

    Raises:
      UserError: if nothing can be loaded, parameters have another shape, or a
        name is unknown.
    """
    from convbert_jax.formats.bind import load

    return load(cls, source, ignore_mismatched_sizes, seed, changes)

  @classmethod
  def from_config(
    cls, config: ConvBertConfig, *, seed: int = 0, **changes: Any
  ) -> "BoundModel":
    """Returns a model of this class that nothing has trained yet.

    Args:
      config: of the model.
      seed: of its parameters.
      **changes: see `from_pretrained`.

    Raises:
      UserError: if a name is unknown.
    """
    from convbert_jax.formats.bind import initialise

    return initialise(cls, config, seed, changes)
