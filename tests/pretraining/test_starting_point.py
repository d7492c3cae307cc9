"""What a pre-training takes over from other models, and what it refuses."""

import functools

import jax
import numpy as np
import pytest
import tiny_convbert
import tiny_electra as tiny
from tiny_convbert import TINY, draw_like

from convbert_jax import ConvBertForMaskedLM, ConvBertTokenizer
from convbert_jax.errors import UserError
from convbert_jax.formats import load
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.pretraining import starting_point

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(45))]


@functools.cache
def shapes_of(electra):
  return tiny_convbert.shapes_of(electra.init_params)


def random_params(electra, seed=0):
  return draw_like(shapes_of(electra), seed)


def networks_of(electra, seed=0):
  """The networks of a run that was trained elsewhere."""
  params = random_params(electra, seed)
  return {
    name: Pretrained(model, tree)
    for name, (model, tree) in electra.networks(params).items()
  }


def starting_params(networks, electra):
  return starting_point.starting_params(
    "X", networks, electra, shapes_of(electra)
  )


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
  "objective",
  [
    {},
    {"tie_embeddings": False},
    {"tie_generator": True},
    {"uniform_generator": True},
    {"kind": "mlm"},
    {"kind": "electric"},
    {"kind": "electric", "tie_embeddings": False},
  ],
)
def test_the_networks_of_a_run_are_all_taken_over(objective):
  electra = tiny.make_electra(**objective)
  params, said = starting_params(networks_of(electra), electra)
  assert_same(params, random_params(electra))
  assert said.endswith(" taken over")


def test_an_encoder_becomes_the_discriminators():
  electra = tiny.make_electra()
  encoder = networks_of(electra)["discriminator"].encoder
  for networks in ({"": encoder}, {"encoder": encoder}):
    params, said = starting_params(networks, electra)
    assert_same(params, {"discriminator": {"convbert": encoder.params}})
    assert said == (
      "X: discriminator encoder taken over; discriminator head and generator"
      " start fresh"
    )
  params, said = starting_params({"": encoder}, tiny.make_electra(kind="mlm"))
  assert_same(params, {"masked_lm": {"convbert": encoder.params}})
  assert said == (
    "X: language model encoder taken over; language model head starts fresh"
  )


def test_a_lone_language_model_gives_its_head_where_it_fits():
  (found,) = networks_of(tiny.make_electra(kind="mlm")).values()
  params, said = starting_params({"": found}, tiny.make_electra())
  assert_same(params["discriminator"], {"convbert": found.params["convbert"]})
  assert said.endswith("discriminator head and generator start fresh")
  tied = tiny.make_electra(tie_generator=True)
  params, said = starting_params({"": found}, tied)
  head = {k: v for k, v in found.params.items() if k != "convbert"}
  assert_same(params["generator"], head)
  assert said == (
    "X: discriminator encoder and generator head taken over; discriminator head"
    " starts fresh"
  )


def test_a_head_that_means_another_thing_starts_fresh():
  electra, electric = tiny.make_electra(), tiny.make_electra(kind="electric")
  for given, run in ((electra, electric), (electric, electra)):
    networks = networks_of(given)
    found = {"": networks["discriminator"]}
    params, said = starting_params(found, run)
    encoder = networks["discriminator"].encoder.params
    assert_same(params, {"discriminator": {"convbert": encoder}})
    assert said.endswith("discriminator head and generator start fresh")
    with pytest.raises(
      UserError, match=r"the generator of X is a ConvBertFor.* name its discr"
    ):
      starting_params(networks, run)
  # As wide as both towers of the noise model, and no head of theirs.
  (model,) = networks_of(tiny.make_electra(kind="mlm")).values()
  params, said = starting_params({"": model}, electric)
  assert "generator" not in params
  assert said.endswith("discriminator head and generator start fresh")


def test_other_architectures_and_ties_are_one_line():
  electra = tiny.make_electra()
  for changes, there in (
    ({"hidden_act": "relu"}, "hidden_act: gelu there, relu in the config"),
    ({"vocab_size": 60}, "vocab_size: 50 there, 60 in the config"),
    ({"hidden_dropout_prob": 0.0, "remat": "full"}, None),
  ):
    wanted = tiny.make_electra(TINY.replace(**changes))
    networks = {"": networks_of(electra)["discriminator"].encoder}
    if there is None:
      starting_params(networks, wanted)
      continue
    with pytest.raises(UserError, match=there) as caught:
      starting_params(networks, wanted)
    assert "\n" not in str(caught.value)
  config = TINY.replace(embedding_size=12)
  networks = networks_of(tiny.make_electra(config))
  with pytest.raises(UserError, match="the generator of X is another model"):
    starting_params(networks, tiny.make_electra(config, tie_embeddings=False))
  networks = networks_of(electra)
  other = networks_of(electra, seed=2)["generator"]
  with pytest.raises(UserError, match="differ where objective"):
    starting_params({**networks, "generator": other}, electra)
  with pytest.raises(UserError, match="X holds a generator alone"):
    starting_params({"generator": other}, electra)


def test_language_heads_that_no_run_has():
  run = tiny.make_electra(kind="mlm")
  (found,) = networks_of(run).values()
  for model in (
    ConvBertForMaskedLM(TINY.replace(tie_word_embeddings=False)),
    ConvBertForMaskedLM(TINY, head_act="relu"),
  ):
    other = {"masked_lm": Pretrained(model, found.params)}
    with pytest.raises(UserError, match="no run trains such a one"):
      starting_params(other, run)
    tied = tiny.make_electra(tie_generator=True)
    _, said = starting_params(other, tied)
    assert said.endswith("discriminator head and generator head start fresh")


def test_sources_are_read_when_the_run_starts(tmp_path):
  electra = tiny.make_electra()
  found = networks_of(electra)["discriminator"].encoder
  encoder = Pretrained(found.model, found.params, ConvBertTokenizer(WORDS))
  load.save_networks(f"hf:{tmp_path / 'model'}", {"": encoder})
  records = tmp_path / "records"
  records.mkdir()
  (records / "vocab.txt").write_text("\n".join(WORDS) + "\n")
  read = starting_point.given_params(
    str(tmp_path / "model"), electra, str(records)
  )
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
    shapes_of(electra),
  )
  params, said = read(like)
  assert_same(params["discriminator"], {"convbert": encoder.params})
  assert said.startswith(f"{tmp_path / 'model'}: discriminator encoder taken")
  (records / "vocab.txt").write_text("\n".join([*WORDS[:-1], "x"]) + "\n")
  with pytest.raises(UserError, match=r"another vocabulary .*1 of 50 tokens"):
    read(like)
