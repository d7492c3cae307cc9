"""What a format cannot express is refused, fields of the future too."""

import dataclasses

import pytest
import reference_models as reference

from convbert_jax import ConvBertConfig
from convbert_jax.errors import UserError
from convbert_jax.formats import (
  huggingface,
  huggingface_state,
  registry,
  tf1,
  tf1_variables,
)
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.model import conv_kinds, heads, task_heads

FORMATS = {
  "hf": huggingface_state.EXPRESSIBLE,
  "tf1": tf1_variables.EXPRESSIBLE,
}
STATE = {
  "hf": huggingface.state_dict_from_params,
  "tf1": tf1.variables_from_params,
}


@dataclasses.dataclass(frozen=True)
class LaterConfig(ConvBertConfig):
  """A config with a field that no format knows."""

  position_kind: str = "learned"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_new_field_is_refused_unless_it_has_its_default(kind):
  FORMATS[kind].check_config(LaterConfig())
  config = LaterConfig(position_kind="rotary")
  with pytest.raises(UserError, match="position_kind='rotary' cannot be conv"):
    FORMATS[kind].check_config(config)
  with pytest.raises(UserError, match="position_kind='rotary' cannot be conv"):
    STATE[kind]({}, config)


def test_a_new_convolution_is_refused_unless_it_names_the_format(monkeypatch):
  assert all(found.kind == kind for kind, found in FORMATS.items())
  assert FORMATS.keys() <= registry.FORMATS.keys()
  kind = conv_kinds.CONV_KINDS["none"]
  for name, formats in (("later", ()), ("known", FORMATS)):
    new = dataclasses.replace(kind, expressible_in=frozenset(formats))
    monkeypatch.setitem(conv_kinds.CONV_KINDS, name, new)
  for found in FORMATS.values():
    found.check_config(ConvBertConfig(conv_type="known"))
    with pytest.raises(UserError, match="conv_type='later' cannot be convert"):
      found.check_config(ConvBertConfig(conv_type="later"))


def test_every_field_of_today_is_decided():
  """By their defaults alone, files hold what is named here."""
  fields = {field.name for field in dataclasses.fields(ConvBertConfig)}
  known = {
    kind: {*found.config, *found.trained_with, *found.checked_apart}
    for kind, found in FORMATS.items()
  }
  same_whatever = {"conv_type", "dtype", "kernels", "remat", "scan_unroll"}
  ours = {"conv_layers", "conv_query", "position_type"}
  assert known["hf"] == fields - same_whatever - ours
  by_default = {"hidden_act", "layer_norm_eps"}
  assert known["tf1"] == fields - same_whatever - ours - by_default


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
  "changed",
  [{"position_type": "rotary"}, {"conv_query": "own"}, {"conv_layers": (0,)}],
  ids=str,
)
def test_what_is_ours_alone_is_refused_by_name(kind, changed):
  (field,) = changed
  with pytest.raises(UserError, match=f"{field}=.* cannot be converted"):
    FORMATS[kind].check_config(ConvBertConfig(**changed))


def test_a_new_option_of_a_head_is_refused(tmp_path):
  class ConvBertForQuestionAnswering(task_heads.ConvBertForQuestionAnswering):
    num_spans: int = 1

  class ConvBertForMaskedLM(heads.ConvBertForMaskedLM):
    is_tied: bool = True

  config, _ = reference.hf_inputs(reference.load("hf_r2_k3_g2"))
  asked = ConvBertForQuestionAnswering(config, num_spans=2)
  with pytest.raises(UserError, match="num_spans=2 cannot be converted"):
    huggingface.write_folder(str(tmp_path / "x"), Pretrained(asked, {}))
  untied = ConvBertForMaskedLM(config, is_tied=False)
  with pytest.raises(UserError, match="is_tied=False cannot be converted"):
    tf1.variables_of({"masked_lm": Pretrained(untied, {})})
