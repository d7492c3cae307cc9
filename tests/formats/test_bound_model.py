"""Models that hold their parameters: called, loaded, saved, resized."""

import jax
import numpy as np
import pytest
from tiny_convbert import TINY, random_params
from tiny_tokenizer import WORDS
from tiny_tokenizer import make as make_tokenizer

import convbert_jax
from convbert_jax import (
  ConvBertConfig,
  ConvBertForMaskedLM,
  ConvBertForPreTraining,
  ConvBertForSequenceClassification,
  ConvBertModel,
)
from convbert_jax.errors import UserError
from convbert_jax.formats import bound_model
from convbert_jax.formats.bound_model import BoundModel
from convbert_jax.formats.pretrained import CLASSES

CONFIG = TINY.replace(head_size_rule="hf")
IDS = np.random.default_rng(0).integers(0, 50, (2, 7))


@pytest.fixture(scope="module")
def classifier():
  return ConvBertForSequenceClassification.from_config(
    CONFIG, id2label={0: "no", 1: "maybe", 2: "yes"}, classifier_dropout=0.2
  )


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
  """The classifier as transformers' folder."""
  folder = tmp_path_factory.mktemp("models") / "classifier"
  classifier.save_pretrained(folder)
  return str(folder)


def test_a_call_is_the_pure_function_compiled_once_for_each_shape(classifier):
  module, params = classifier.module, classifier.params
  expected = jax.jit(module.apply)({"params": params}, IDS)
  before = bound_model._run._cache_size()
  for _ in range(3):
    found = classifier(IDS)
  assert bound_model._run._cache_size() == before + 1
  np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
  classifier(IDS[:1])
  assert bound_model._run._cache_size() == before + 2


def test_inputs_come_by_place_by_name_as_a_list_and_as_a_mapping(classifier):
  mask = (IDS > 10).astype("float32")
  expected = classifier(input_ids=IDS, attention_mask=mask).logits
  for given in (
    (IDS, mask),
    ([IDS, mask],),
    ({"input_ids": IDS, "attention_mask": mask},),
    (IDS.tolist(), mask.tolist()),
  ):
    np.testing.assert_array_equal(classifier(*given).logits, expected)
  np.testing.assert_array_equal(
    classifier(IDS.tolist()).logits, classifier(IDS, labels=None).logits
  )


def test_tuples_and_flags(classifier):
  labels = np.array([0, 2])
  named = classifier(IDS, labels=labels, output_attentions=True)
  assert [*named] == ["loss", "logits", "attentions"]
  given = classifier(
    IDS, labels=labels, output_attentions=True, return_dict=False
  )
  assert isinstance(given, tuple) and len(given) == len(named) == 3
  for place, array in enumerate(given[:2]):
    np.testing.assert_array_equal(named[place], array)
  assert named[0] is named.loss is named["loss"]
  assert named[1:][0] is named.logits
  asked = BoundModel(
    classifier.module.clone(
      config=classifier.config.replace(
        output_hidden_states=True, return_dict=False
      )
    ),
    classifier.params,
  )
  logits, hidden_states = asked(IDS)
  assert len(hidden_states) == CONFIG.num_hidden_layers + 1
  assert len(asked(IDS, output_hidden_states=False)) == 1
  np.testing.assert_allclose(logits, named.logits, atol=1e-5)


def test_dropout_needs_a_key(classifier):
  plain = classifier(IDS).logits
  keys = jax.random.split(jax.random.key(0), 2)
  one, other, again = (
    classifier(IDS, training=True, dropout_key=key).logits
    for key in (*keys, keys[0])
  )
  np.testing.assert_array_equal(one, again)
  assert np.abs(one - other).max() > 1e-4 < np.abs(one - plain).max()


def test_what_a_call_refuses(classifier):
  for given, words in (
    ({"input_ids": IDS + 50}, "input_ids: .* with vocab_size=50 give 0 to 49"),
    ({"input_ids": IDS, "token_type_ids": IDS}, "token_type_ids: .* out of"),
    ({"input_ids": IDS, "labels": [3, 0]}, "label 3 is none of 3 classes"),
    ({"input_ids": IDS, "lables": [1, 0]}, "unknown input 'lables'.*'labels'"),
    ({"input_ids": IDS, "training": True}, "give dropout_key"),
    ({"attention_mask": IDS}, "either input_ids or inputs_embeds"),
    ({"input_ids": np.zeros((1, 65), int)}, "max_position_embeddings=64"),
    ({"input_ids": [[1, 2], [3]]}, "input_ids: rows of diff.*padding=True"),
    ({"input_ids": ["a text"]}, "input_ids: give numbers; the tokenizer"),
    ({"input_ids": IDS / 2}, "input_ids of dtype float.*: give whole"),
    ({"input_ids": IDS > 3}, "input_ids of dtype bool: give whole numbers"),
    (
      {"input_ids": IDS, "token_type_ids": IDS > 3},
      "token_type_ids of dtype bool",
    ),
    ({"input_ids": IDS, "position_ids": IDS / 50}, "position_ids of dtype flo"),
    (
      {"input_ids": IDS, "token_type_ids": IDS[:, :3] % 2},
      r"token_type_ids of shape \(2, 3\): give \[batch, length\] \(2, 7\)",
    ),
    (
      {"input_ids": IDS, "token_type_ids": IDS[0] % 2},
      r"token_type_ids of shape \(7,\): give",
    ),
    ({"input_ids": IDS, "position_ids": [[1]]}, r"of shape \(1, 1\): give"),
    ({"input_ids": IDS[:0]}, r"input_ids of shape \(0, 7\) is empty"),
    ({"input_ids": IDS[:, :0]}, r"input_ids of shape \(2, 0\) is empty"),
    (
      {"input_ids": IDS, "training": True, "dropout_key": 3},
      "dropout_key is of type int: give jax.random",
    ),
    (
      {"input_ids": IDS, "dropout_key": jax.random.key(0)},
      "dropout_key does nothing alone: give training=True",
    ),
  ):
    with pytest.raises(UserError, match=words) as caught:
      classifier(**given)
    assert "\n" not in str(caught.value)
  with pytest.raises(UserError, match="input_ids is given twice"):
    classifier(IDS, input_ids=IDS)
  with pytest.raises(UserError, match="a mapping of inputs beside others"):
    classifier({"input_ids": IDS}, IDS > 10)


def test_one_row_of_positions_counts_for_all(classifier):
  row = np.arange(7)[None, ::-1]
  np.testing.assert_array_equal(
    classifier(IDS, position_ids=row).logits,
    classifier(IDS, position_ids=np.repeat(row, 2, axis=0)).logits,
  )


@pytest.fixture(scope="module")
def language_model():
  module = ConvBertForMaskedLM(CONFIG)
  return BoundModel(module, random_params(module, IDS))


def test_predicted_positions(language_model):
  model = language_model
  given = np.array([[0, 6], [3, 3]])
  found = model(IDS, positions=given).logits
  np.testing.assert_allclose(
    found, np.take_along_axis(model(IDS).logits, given[..., None], 1), atol=1e-6
  )
  for wrong, words in (
    ([[0, 7], [1, 1]], "positions: 7 is out of range, with length=7 give 0 to"),
    ([[0, -1], [1, 1]], "positions: -1 is out of range"),
    ([0, 1], r"positions of shape \(2,\): give \[batch, predicted\], a row"),
    ([[0, 1]], r"positions of shape \(1, 2\): give"),
    ([[0.0], [1.0]], "positions of dtype float.*: give whole numbers"),
  ):
    with pytest.raises(UserError, match=words):
      model(IDS, positions=wrong)
  with pytest.raises(UserError, match="positions: 9 is out of range"):
    model.module.apply(
      {"params": model.params}, IDS, positions=np.array([[0], [9]])
    )


def test_inside_a_compiled_function_ids_out_of_range_give_nan(classifier):
  run = jax.jit(lambda ids: classifier(ids).logits)
  found = run(np.stack([IDS[0], IDS[1] + 50]))
  assert np.isnan(found[1]).all()
  np.testing.assert_allclose(found[0], classifier(IDS).logits[0], atol=1e-5)


@pytest.mark.parametrize(
  "name",
  [
    name
    if name == "ConvBertForMaskedLM"
    else pytest.param(name, marks=pytest.mark.slow)
    for name in CLASSES
    if name != "ConvBertForCloze"  # In test_orbax; it has no such calls.
  ],
)
def test_every_class_is_saved_and_loaded(tmp_path, name):
  cls = getattr(convbert_jax, name)
  is_choice = name == "ConvBertForMultipleChoice"
  options = (
    {"classifier_type": "two_layer"}
    if name == "ConvBertForSequenceClassification"
    else {}
  )
  module = cls(CONFIG, **options)
  model = BoundModel(
    module, random_params(module, IDS[None] if is_choice else IDS)
  )
  target = f"orbax:{tmp_path / 'model'}"
  if name not in (
    "ConvBertForPreTraining", "ConvBertForJointQuestionAnswering"
  ):  # fmt: skip
    target = str(tmp_path / "model")
  model.save_pretrained(target)
  found = cls.from_pretrained(target)
  assert found.module == model.module and found.config == model.config
  jax.tree.map(np.testing.assert_array_equal, found.params, model.params)
  assert all(isinstance(a, jax.Array) for a in jax.tree.leaves(found.params))


def test_a_head_that_transformers_lacks_is_not_lost(tmp_path):
  module = ConvBertForPreTraining(CONFIG)
  model = BoundModel(module, random_params(module, IDS))
  with pytest.raises(UserError, match=r"no ConvBertForPreTraining.*'orbax:"):
    model.save_pretrained(tmp_path / "model")
  assert not (tmp_path / "model").exists()


def test_a_model_joins_the_tokenizer_that_was_saved_before(tmp_path):
  model = ConvBertModel.from_config(CONFIG)
  model.tokenizer = make_tokenizer()
  for kind in ("hf", "orbax"):
    target = tmp_path / kind
    kept = make_tokenizer([*WORDS, "kept"])
    kept.save_pretrained(target)
    CONFIG.replace(num_labels=3).save_pretrained(target)
    before = (target / "tokenizer.json").read_bytes()
    model.save_pretrained(f"{kind}:{target}")
    found = ConvBertModel.from_pretrained(target)
    assert found.config == CONFIG
    assert found.tokenizer.vocabulary == kept.vocabulary
    assert (target / "tokenizer.json").read_bytes() == before
    with pytest.raises(UserError, match="is not empty: name a new folder"):
      model.save_pretrained(f"{kind}:{target}")
  other = tmp_path / "other"
  many = [*WORDS, *map(str, range(50))]
  make_tokenizer(many).save_pretrained(other)
  names = sorted(path.name for path in other.iterdir())
  with pytest.raises(UserError, match="vocabulary of 63 tokens, but the model"):
    model.save_pretrained(other)
  (other / "notes.txt").write_text("mine")
  with pytest.raises(UserError, match="is not empty"):
    model.save_pretrained(other)
  (other / "notes.txt").unlink()
  assert sorted(path.name for path in other.iterdir()) == names
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "hf", "orbax", "other"
  ]  # fmt: skip


def test_another_number_of_labels(classifier, folder):
  cls = ConvBertForSequenceClassification
  words = r"out_proj/bias of shape \(3,\).*ignore_mismatched_sizes=True"
  with pytest.raises(UserError, match=words):
    cls.from_pretrained(folder, num_labels=5)
  with pytest.warns(UserWarning, match="out_proj/kernel of ConvBertForSeq"):
    found = cls.from_pretrained(
      folder, num_labels=5, ignore_mismatched_sizes=True
    )
  assert found(IDS).logits.shape == (2, 5)
  assert found.config.num_labels == len(found.config.id2label) == 5
  head, old = found.params["classifier"], classifier.params["classifier"]
  np.testing.assert_array_equal(head["dense"]["kernel"], old["dense"]["kernel"])
  # As many, under other names.
  names = {0: "a", 1: "b", 2: "c"}
  renamed = cls.from_pretrained(folder, id2label=names)
  assert dict(renamed.config.id2label) == names
  np.testing.assert_array_equal(renamed(IDS).logits, classifier(IDS).logits)


def test_an_encoder_gets_another_head(classifier, folder):
  with pytest.warns(UserWarning, match="qa_outputs/bias, qa_outputs/kernel of"):
    found = convbert_jax.ConvBertForQuestionAnswering.from_pretrained(folder)
  encoder = ConvBertModel.from_pretrained(folder, output_hidden_states=True)
  for params in (found.params["convbert"], encoder.params):
    jax.tree.map(
      np.testing.assert_array_equal, params, classifier.params["convbert"]
    )
  assert encoder.get_output_embeddings() is None
  last = encoder(IDS)
  np.testing.assert_array_equal(last.hidden_states[-1], last[0])


def test_what_is_no_config_and_no_folder():
  with pytest.raises(
    UserError, match="config is of type dict: give a ConvBert"
  ):
    ConvBertModel.from_config({"hidden_size": 24})
  with pytest.raises(UserError, match="the model's folder is None"):
    ConvBertModel.from_pretrained(None)


def test_changes_that_the_encoder_does_not_fit_are_refused(folder):
  for changes, words in (
    ({"nun_labels": 3}, "keyword argument 'nun_labels'.*'num_labels'"),
    ({"device_map": "auto"}, "device_map is an option of transformers without"),
    ({"vocab_size": 51}, r"word_embeddings of shape \(50, 8\).*\(51, 8\)"),
    ({"conv_type": "none"}, "needs none"),
  ):
    with pytest.raises(UserError, match=words):
      ConvBertModel.from_pretrained(folder, **changes)


@pytest.mark.parametrize(
  "tied", [pytest.param(True, marks=pytest.mark.slow), False]
)
def test_the_vocabulary_is_resized(tied):
  module = ConvBertForMaskedLM(CONFIG.replace(tie_word_embeddings=tied))
  model = BoundModel(module, random_params(module, IDS, spread=0.1))
  before = model(IDS).logits
  table = model.resize_token_embeddings(53)
  assert table.shape == (53, 8) and model.config.vocab_size == 53
  new = np.asarray(table[50:])
  assert 0 < new.std() < 2 * CONFIG.initializer_range
  assert len(np.unique(new)) == new.size
  np.testing.assert_allclose(model(IDS).logits[..., :50], before, atol=1e-6)
  assert model(IDS + 3).logits.shape == (2, 7, 53)
  table = model.get_output_embeddings()
  assert table.shape == (53, 8)
  assert tied == (table is model.get_input_embeddings())
  assert model.resize_token_embeddings(53, pad_to_multiple_of=8).shape[0] == 56
  with pytest.raises(UserError, match="pad_to_multiple_of=0: give 1 or more"):
    model.resize_token_embeddings(53, pad_to_multiple_of=0)
  model.resize_token_embeddings(50)
  np.testing.assert_allclose(model(IDS).logits, before, atol=1e-6)
  model.resize_token_embeddings(20)
  with pytest.raises(UserError, match="vocab_size=20"):
    model(IDS)


def test_the_word_table_can_be_replaced(folder):
  model = ConvBertModel.from_pretrained(folder)
  before = model(IDS).last_hidden_state
  table = model.get_input_embeddings()
  model.set_input_embeddings(np.roll(table, 1, axis=0))
  np.testing.assert_array_equal(model((IDS + 1) % 50).last_hidden_state, before)
  with pytest.raises(UserError, match=r"shape \(3, 8\): give \(50, 8\)"):
    model.set_input_embeddings(np.zeros((3, 8)))


def test_the_config_of_any_model_is_read_alone(folder, tmp_path):
  module = ConvBertForPreTraining(CONFIG)
  model = BoundModel(module, random_params(module, IDS))
  model.save_pretrained(f"orbax:{tmp_path / 'ours'}")
  assert ConvBertConfig.from_pretrained(tmp_path / "ours") == CONFIG
  labels = ConvBertConfig.from_pretrained(folder).id2label
  assert dict(labels) == {0: "no", 1: "maybe", 2: "yes"}
