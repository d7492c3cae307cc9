"""Ids that no row has: an error where they can be seen, NaN elsewhere."""

import functools

import jax
import numpy as np
import pytest
from tiny_convbert import TINY, random_params
from tiny_electra import SPECIAL, make_batch, make_electra, unboxed_params

import convbert_jax
from convbert_jax.model.config import check_segments
from convbert_jax.objective import masking
from convbert_jax.ops import lookup
from convbert_jax.tasks import registry

CONFIG = TINY.replace(type_vocab_size=3, max_position_embeddings=8)
IDS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 6))
# Input, a value beyond its table and one before, and the field of its size.
BEYOND = [
  ("input_ids", CONFIG.vocab_size, "vocab_size=50 give 0 to 49"),
  ("token_type_ids", 3, "type_vocab_size=3 give 0 to 2"),
  ("position_ids", 8, "max_position_embeddings=8 give 0 to 7"),
]


@pytest.fixture(scope="module")
def params():
  """As a checkpoint is read: NumPy's."""
  return random_params(convbert_jax.ConvBertModel(CONFIG), IDS)


@pytest.fixture(scope="module")
def run(params):
  """Closes over the parameters, as a user's function would."""

  def run(inputs, **options):
    model = convbert_jax.ConvBertModel(CONFIG)
    return model.apply({"params": params}, **inputs, **options)

  return run


@pytest.fixture(scope="module")
def compiled(run):
  return jax.jit(lambda inputs: run(inputs).last_hidden_state)


def inputs(**changed):
  given = {
    "input_ids": IDS,
    "token_type_ids": IDS % 3,
    "position_ids": np.tile(np.arange(6), (2, 1)),
  }
  return {**given, **changed}


@pytest.mark.parametrize("wrong", ["beyond", "negative"])
@pytest.mark.parametrize(("name", "beyond", "words"), BEYOND)
def test_an_id_out_of_range(run, compiled, name, beyond, words, wrong):
  spoilt = inputs()[name].copy()
  spoilt[1, 2] = beyond if wrong == "beyond" else -1
  given = inputs(**{name: spoilt})
  with pytest.raises(
    ValueError, match=f"{name}: {spoilt[1, 2]} .*{words}"
  ) as e:
    run(given)
  assert "\n" not in str(e.value)
  found = compiled(given)
  # Of the same row all positions attend to it.
  assert np.isnan(found[1]).all()
  np.testing.assert_array_equal(found[0], compiled(inputs())[0])


def test_the_last_row_of_every_table_is_in_range(run, compiled):
  given = inputs(
    input_ids=np.full((2, 6), 49),
    token_type_ids=np.full((2, 6), 2),
    position_ids=np.full((2, 6), 7),
  )
  np.testing.assert_allclose(
    compiled(given), run(given).last_hidden_state, atol=1e-5
  )


def test_who_knows_them_to_be_in_range_gets_the_program_without_the_check(run):
  def lowered(**options):
    found = jax.jit(functools.partial(run, **options)).lower(inputs())
    return found.as_text()

  assert "nan" not in lowered(ids_in_range=True).lower()
  assert lowered(ids_in_range=True) != lowered()


def test_loaded_parameters_can_be_closed_over(run, compiled):
  each = jax.vmap(
    lambda ids, types: run(
      {"input_ids": ids[None], "token_type_ids": types[None]}
    ).last_hidden_state[0]
  )
  np.testing.assert_allclose(each(IDS, IDS % 3), compiled(inputs()), atol=1e-5)


def test_training_does_not_look_at_ids(monkeypatch):
  electra, batch = make_electra(CONFIG), make_batch(length=8)
  params = unboxed_params(electra)
  networks = []
  for name in ("rte", "chunk", "squad1", "squad2", "race"):
    task = registry.get_task(name)
    model = task.model(CONFIG, "original")
    rows = {n: a[:, None] if name == "race" else a for n, a in batch.items()}
    networks.append(
      (task, model, random_params(model, rows["input_ids"]), rows)
    )

  def losses(key):
    selection = masking.select(key, batch, 0.15, SPECIAL)
    return electra.losses(params, batch, selection, key)[0]

  def refuse(*_):
    raise AssertionError("looked at")

  monkeypatch.setattr(lookup, "in_range", refuse)
  jax.eval_shape(losses, jax.random.key(0))
  for task, *given in networks:
    jax.eval_shape(functools.partial(task.apply, given[0]), *given[1:])
  _, model, params, rows = networks[0]
  with pytest.raises(AssertionError, match="looked at"):
    model.apply({"params": params}, rows["input_ids"])


def test_segments_that_a_model_does_not_have_are_refused():
  with pytest.raises(ValueError, match="2 segments exceed type_vocab_size=1"):
    check_segments(CONFIG.replace(type_vocab_size=1), 2)
  check_segments(CONFIG, 3)
