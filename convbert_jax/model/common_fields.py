"""What a config of transformers holds beside the shape of the encoder.

None of these is a setting of a run: the config files have the shape alone, and
a task makes its own head.
"""

import dataclasses
import json
import numbers
from collections.abc import Mapping

import flax.core

from convbert_jax import errors
from convbert_jax.ops import activations

PROBLEM_TYPES = (
  "regression",
  "single_label_classification",
  "multi_label_classification",
)
SUMMARY_TYPES = ("last", "first", "mean", "cls_index")
# Of the vocabularies of the original and of our runs: padding comes first, and
# no token begins or ends a text.
OWN_IDS = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}


_FLAGS = (
  "summary_use_proj",
  "summary_proj_to_labels",
  "tie_word_embeddings",
  "output_attentions",
  "output_hidden_states",
  "return_dict",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonFields:
  """Special ids, heads and outputs, with transformers' defaults.

  Attributes:
    pad_token_id: carried, and never computed with: padding is what the
      attention mask says, and its row is trained like any other.
    bos_token_id: carried, like the next.
    eos_token_id: one id or several.
    num_labels: classes of a head; those of `id2label` if None, else 2.
    id2label: names of the classes; "LABEL_0" and so on if None.
    label2id: the inverse; made of `id2label` if None.
    problem_type: of a sequence classifier, see that class.
    classifier_dropout: before the classifiers of sequences and tokens;
      `hidden_dropout_prob` if None.
    summary_type: which vector stands for a choice, "last", "first" or "mean";
      "cls_index" is the last, too. Padding is not left out.
    summary_use_proj: whether a linear map follows.
    summary_proj_to_labels: whether it maps to `num_labels`. The classifier
      after it takes `hidden_size`, so that both must then be equal.
    summary_activation: after that, one of `activations.BY_NAME`; None for none.
    summary_first_dropout: before the map.
    summary_last_dropout: after the activation.
    tie_word_embeddings: whether the output map of a language model is the word
      table.
    output_attentions: what a call returns that does not say, like the next two.
    output_hidden_states: the same.
    return_dict: False for plain tuples, see `BoundModel`.
    other_entries: JSON text of the entries of a `config.json` that mean nothing
      here, carried to the next.
  """

  pad_token_id: int | None = 1
  bos_token_id: int | None = 0
  eos_token_id: int | tuple[int, ...] | None = 2
  num_labels: int | None = None
  id2label: Mapping[int, str] | None = None
  label2id: Mapping[str, int] | None = None
  problem_type: str | None = None
  classifier_dropout: float | None = None
  summary_type: str = "last"
  summary_use_proj: bool = False
  summary_proj_to_labels: bool = False
  summary_activation: str | None = None
  summary_first_dropout: float = 0.0
  summary_last_dropout: float = 0.0
  tie_word_embeddings: bool = True
  output_attentions: bool = False
  output_hidden_states: bool = False
  return_dict: bool = True
  other_entries: str = "{}"

  @property
  def label_names(self) -> tuple[str, ...]:
    """Names of the classes, in order; none if they are merely numbered."""
    names = tuple(self.id2label.values())
    return () if names == _numbered(len(names)) else names

  def complete_labels(self) -> None:
    """Fills in what follows from the labels that are given.

    Raises:
      UserError: if they contradict each other.
    """
    self._check_kinds_of_labels()
    given = self.id2label
    if given is None and self.label2id is not None:
      given = {number: name for name, number in self.label2id.items()}
    if given is None:
      count = 2 if self.num_labels is None else self.num_labels
      given = dict(enumerate(_numbered(count)))
    # Of JSON, the numbers are text.
    try:
      names = {int(number): str(name) for number, name in given.items()}
    except (TypeError, ValueError) as error:
      raise errors.UserError(
        f"labels {dict(given)}: number them, as in"
        " id2label={0: 'no', 1: 'yes'}"
      ) from error
    names = {number: names[number] for number in sorted(names)}
    inverse = {name: number for number, name in names.items()}
    self._check_labels(names, inverse)
    # Hashable, unlike dicts.
    self._set("id2label", flax.core.FrozenDict(names))
    self._set("label2id", flax.core.FrozenDict(self.label2id or inverse))
    self._set("num_labels", len(names))
    if isinstance(self.eos_token_id, list):
      self._set("eos_token_id", tuple(self.eos_token_id))

  def check_common_fields(self) -> None:
    """Refuses values that no head has.

    Raises:
      UserError: naming the field.
    """
    for field in _FLAGS:
      if not isinstance(getattr(self, field), bool):
        raise errors.UserError(
          f"{field}={getattr(self, field)!r}: give True or False"
        )
    for field in OWN_IDS:
      self._check_id(field)
    for field, valid in (
      ("problem_type", (None, *PROBLEM_TYPES)),
      ("summary_type", SUMMARY_TYPES),
      ("summary_activation", (None, *activations.BY_NAME)),
    ):
      value = getattr(self, field)
      if value not in valid:
        names = [name for name in valid if name is not None]
        raise errors.unknown_name(field, value, names)
    for field in (
      "classifier_dropout",
      "summary_first_dropout",
      "summary_last_dropout",
    ):
      rate = getattr(self, field)
      if rate is not None and not 0.0 <= rate < 1.0:
        raise errors.UserError(
          f"{field}={rate} must lie in [0, 1); 0 switches dropout off"
        )
    json.loads(self.other_entries)

  def _check_id(self, field: str) -> None:
    """Refuses what is no id of a token, nor the ids of several ends."""
    value = getattr(self, field)
    several = field == "eos_token_id" and isinstance(value, tuple)
    for each in value if several else (value,):
      is_id = isinstance(each, numbers.Integral) and not isinstance(each, bool)
      if each is not None and not is_id:
        raise errors.UserError(
          f"{field}={value!r}: give a whole number, or None"
        )

  def _check_kinds_of_labels(self) -> None:
    for field, example in (
      ("id2label", "{0: 'no', 1: 'yes'}"),
      ("label2id", "{'no': 0, 'yes': 1}"),
    ):
      value = getattr(self, field)
      if not isinstance(value, Mapping | None):
        raise errors.UserError(
          f"{field}={value!r}: give a mapping, as in {field}={example}"
        )
    count = self.num_labels
    is_whole = isinstance(count, numbers.Integral) and count is not True
    if count is not None and (not is_whole or count < 1):
      raise errors.UserError(
        f"num_labels={count!r}: give a whole number, 1 or more; 1 is a"
        " regression"
      )

  def _check_labels(
    self, names: Mapping[int, str], inverse: Mapping[str, int]
  ) -> None:
    if len(inverse) < len(names):
      twice = next(n for n, name in names.items() if inverse[name] != n)
      raise errors.UserError(
        f"id2label has the name {names[twice]!r} twice: give each class its own"
      )
    if not names or [*names] != list(range(len(names))):
      raise errors.UserError(
        f"id2label={dict(names)}: number the classes from 0 to"
        f" {len(names) - 1}, and give one at least"
      )
    if self.num_labels not in (None, len(names)):
      raise errors.UserError(
        f"num_labels={self.num_labels} with {len(names)} labels; give either"
      )
    if self.label2id is not None and dict(self.label2id) != inverse:
      raise errors.UserError(
        f"label2id={dict(self.label2id)} does not undo id2label={dict(names)};"
        " give either"
      )

  def _set(self, field: str, value: object) -> None:
    object.__setattr__(self, field, value)


# Fields that say the same of labels: with one, the others change.
_LABELS = ("num_labels", "id2label", "label2id")


def with_new_labels(changes: Mapping[str, object]) -> dict[str, object]:
  """Returns changes of a config, its labels forgotten where new ones come."""
  if not changes.keys() & set(_LABELS):
    return dict(changes)
  return {**dict.fromkeys(_LABELS), **changes}


def _numbered(num_labels: int) -> tuple[str, ...]:
  return tuple(f"LABEL_{number}" for number in range(num_labels))


NAMES = tuple(field.name for field in dataclasses.fields(CommonFields))
