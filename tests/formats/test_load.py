"""What a path or name holds is recognised, and written in other formats."""

import huggingface_hub
import huggingface_hub.errors
import jax
import numpy as np
import pytest
import reference_models as reference

import convbert_jax
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats import load, registry, tf1
from convbert_jax.formats.pretrained import Pretrained

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello"]


@pytest.fixture(scope="module")
def networks():
  """Of a pre-training; its generator's heads are too wide for transformers."""
  variables = reference.select(reference.load("tf_pretrain_electra"), "var:")
  tokenizer = ConvBertTokenizer(WORDS)
  return {
    name: Pretrained(found.model, found.params, tokenizer)
    for name, found in tf1.networks_of(variables).items()
  }


@pytest.fixture
def single(networks):
  return {"": networks["discriminator"].encoder}


def entry_not_found(file):
  error = huggingface_hub.errors.EntryNotFoundError
  return error.__new__(error, file)


def assert_same(found, given):
  assert type(found.model) is type(given.model)
  assert found.tokenizer.vocabulary == given.tokenizer.vocabulary
  jax.tree.map(np.testing.assert_array_equal, found.params, given.params)


def test_a_pretraining_there_and_back(tmp_path, networks):
  lines = load.save_networks(f"orbax:{tmp_path}", networks)
  assert [line.rpartition(": ")[2] for line in lines] == [
    "ConvBertForPreTraining",
    "ConvBertForMaskedLM",
  ]
  assert registry.resolve(str(tmp_path))[0] == "orbax"
  found = load.load_networks(str(tmp_path))
  assert list(found) == list(networks)
  for name, given in networks.items():
    assert_same(found[name], given)
    assert found[name].model == given.model


def test_what_transformers_lacks_is_left_out_and_told(tmp_path, networks):
  lines = load.save_networks(f"hf:{tmp_path}", networks)
  assert lines[0].endswith("discriminator: ConvBertModel")
  assert lines[1].startswith("generator: left out, heads of width 12")
  assert registry.resolve(str(tmp_path))[0] == "hf"
  (found,) = load.load_networks(str(tmp_path)).values()
  assert_same(found, networks["discriminator"].encoder)
  generator = {"generator": networks["generator"]}
  with pytest.raises(UserError, match="generator: left out, heads of width"):
    load.save_networks(f"hf:{tmp_path / 'other'}", generator)


@pytest.mark.parametrize("kind", ["hf", "orbax"])
def test_one_network_stands_in_the_folder_itself(tmp_path, single, kind):
  load.save_networks(f"{kind}:{tmp_path}", single)
  assert registry.resolve(str(tmp_path))[0] == kind
  assert_same(load.load_model(f"{kind}:{tmp_path}"), single[""])


def test_a_head_is_chosen_by_name(tmp_path, networks):
  source = str(tmp_path)
  load.save_networks(f"orbax:{source}", networks)
  for head, name in (
    (None, "discriminator"),
    ("ConvBertForPreTraining", "discriminator"),
    ("ConvBertForMaskedLM", "generator"),
  ):
    assert_same(load.load_model(source, head), networks[name])
  config, params, tokenizer = convbert_jax.load_pretrained(
    source, "ConvBertModel"
  )
  encoder = networks["discriminator"].encoder
  assert config == encoder.model.config
  jax.tree.map(np.testing.assert_array_equal, params, encoder.params)
  assert tokenizer.vocab_size == len(WORDS)


def test_another_head_is_refused(tmp_path, networks):
  source = str(tmp_path)
  load.save_networks(f"orbax:{source}", networks)
  with pytest.raises(UserError, match="holds a ConvBertForMaskedLM and a Conv"):
    load.load_model(source, "ConvBertForMultipleChoice")
  with pytest.raises(UserError, match=r"head 'ConvBertForMaskedML'.*MaskedLM"):
    load.load_model(source, "ConvBertForMaskedML")


def test_a_vocabulary_can_be_given(tmp_path, single):
  path = tmp_path / "words.txt"
  path.write_text("\n".join([*WORDS, "world"]) + "\n")
  load.save_networks(f"orbax:{tmp_path / 'model'}", single)
  (found,) = load.load_networks(
    str(tmp_path / "model"), vocabulary=str(path)
  ).values()
  assert found.tokenizer.vocabulary[-1] == "world"
  path.write_text("\n".join([*WORDS, *map(str, range(500))]) + "\n")
  with pytest.raises(UserError, match="a vocabulary of 506 tokens, but"):
    load.load_networks(str(tmp_path / "model"), vocabulary=str(path))


def test_no_folder_is_written_into(tmp_path, networks):
  (tmp_path / "checkpoints").mkdir()
  for kind in ("hf", "orbax"):
    with pytest.raises(UserError, match="is not empty"):
      load.save_networks(f"{kind}:{tmp_path}", networks)
  assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
  with pytest.raises(UserError, match="no folder is named"):
    load.save_networks("orbax:", networks)


def test_the_settings_beside_a_vocabulary_are_read(tmp_path, single):
  cased = ConvBertTokenizer([*WORDS, "World"], do_lower_case=False)
  cased.save_pretrained(str(tmp_path / "words"))
  load.save_networks(f"orbax:{tmp_path / 'model'}", single)
  (found,) = load.load_networks(
    str(tmp_path / "model"), vocabulary=str(tmp_path / "words" / "vocab.txt")
  ).values()
  assert found.tokenizer.tokenize("World") == ["World"]


def test_where_there_is_no_model(tmp_path):
  for source, words in {
    "{}": r"holds no model: no \*.index .* no run .* no model.json, no config",
    "{}/nowhere": "no such folder, and no name of the hub",
    "hg:{}": "unknown format 'hg'; did you mean 'hf'",
    "tf1:{}": "no TensorFlow checkpoint there",
    "orbax:{}": "cannot read .*model.json",
    "hf:{}": "cannot read .*config.json",
  }.items():
    with pytest.raises(UserError, match=words) as caught:
      load.load_networks(source.format(tmp_path))
    assert "\n" not in str(caught.value)


def test_only_a_run_has_steps(tmp_path, single):
  load.save_networks(f"orbax:{tmp_path}", single)
  with pytest.raises(UserError, match="is no run"):
    load.load_networks(str(tmp_path), step=3)


def test_a_target_names_its_format(tmp_path, single):
  with pytest.raises(UserError, match="name a format, as in orbax:"):
    load.save_networks(str(tmp_path), single)


def test_a_name_of_the_hub_is_fetched(tmp_path, single, monkeypatch):
  load.save_networks(f"hf:{tmp_path}", single)
  asked = []

  def fetch(name, file):
    asked.append(file)
    assert name == "someone/convbert"
    if not (tmp_path / file).exists():
      raise entry_not_found(file)
    return str(tmp_path / file)

  monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
  assert_same(load.load_model("someone/convbert"), single[""])
  assert "model.safetensors" in asked
  assert "pytorch_model.bin" not in asked


def test_a_connection_that_breaks_is_told(tmp_path, single, monkeypatch):
  load.save_networks(f"hf:{tmp_path}", single)

  def fetch(name, file):
    if file == "tokenizer_config.json":
      raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")
    return str(tmp_path / file)

  monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
  with pytest.raises(UserError, match=r"did not give it .*no connection"):
    load.load_model("someone/convbert")


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
  def fail(name, file):
    raise huggingface_hub.errors.OfflineModeIsEnabled("offline\nsecond line")

  monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
  with pytest.raises(UserError, match="the hub did not give it") as caught:
    load.load_model("someone/convbert")
  assert "\n" not in str(caught.value)
