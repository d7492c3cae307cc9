"""Several texts in a row give what each gives alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_convbert import TINY, random_params

from convbert_jax import ConvBertModel
from convbert_jax.data import packing as host
from convbert_jax.errors import UserError
from convbert_jax.model.cloze import ConvBertForCloze
from convbert_jax.model.conv_kinds import CONV_KINDS
from convbert_jax.ops import packing, partitioning
from convbert_jax.ops.packing import Packing
from convbert_jax.training import sharding

LENGTHS = (5, 1, 7, 3, 6, 2)
ROW = 9
RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 50, (len(LENGTHS), max(LENGTHS)))
MASK = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(int)
TYPES = RNG.integers(0, 2, IDS.shape)
BATCH = {
  "input_ids": IDS * MASK,
  "attention_mask": MASK,
  "token_type_ids": TYPES,
}
PACKING = Packing(*host.plan(LENGTHS, max(LENGTHS), ROW, num_parts=1))
DEEP = TINY.replace(
  num_hidden_layers=2, hidden_dropout_prob=0.0, mask_padding_in_conv=True
)
CONFIGS = {
  **{
    kind: DEEP.replace(conv_type=kind, head_ratio=1 if kind == "none" else 2)
    for kind in CONV_KINDS
  },
  "rotary": DEEP.replace(position_type="rotary", conv_kernel_size=11),
  "some layers": DEEP.replace(conv_layers=(1,)),
}
# Both convolutions, and positions that attention reads.
QUICK = ("span_dynamic", "rotary")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in CONFIGS
  ],
)
def test_texts_give_what_each_gives_in_a_row_of_its_own(name):
  model = ConvBertModel(CONFIGS[name])
  params = {"params": random_params(model, IDS)}

  @jax.jit
  def run(packing):
    return model.apply(params, **BATCH, packing=packing).last_hidden_state

  packed = run(PACKING)
  assert packed.shape == (*IDS.shape, TINY.hidden_size)
  assert not packed[MASK == 0].any()
  np.testing.assert_allclose(packed[MASK == 1], run(None)[MASK == 1], atol=1e-5)


@pytest.mark.slow
def test_no_pads_are_read_where_a_row_has_none():
  """Although convolutions would read those of a row."""
  config = TINY.replace(mask_padding_in_conv=False)
  model = ConvBertModel(config)
  params = {"params": random_params(model, IDS)}
  packed = model.apply(params, **BATCH, packing=PACKING).last_hidden_state
  text = 4
  alone = model.apply(params, **one_text(text)).last_hidden_state[0]
  np.testing.assert_allclose(packed[text, : len(alone)], alone, atol=1e-5)
  padded = model.apply(params, **BATCH).last_hidden_state
  assert np.abs(padded[text, : len(alone)] - alone).max() > 1e-3


def one_text(text):
  """Returns the batch of one text without padding."""
  row = {name: array[text, : LENGTHS[text]] for name, array in BATCH.items()}
  return {name: array[None] for name, array in row.items()}


def test_gradients_are_those_of_rows_of_one_text():
  model = ConvBertModel(DEEP)
  params = random_params(model, IDS)
  weights = RNG.normal(size=(*IDS.shape, TINY.hidden_size)) * MASK[..., None]
  embeds = RNG.normal(size=(*IDS.shape, TINY.embedding_size))

  def total(params, embeds, packing):
    batch = {**BATCH, "inputs_embeds": embeds}
    del batch["input_ids"]
    out = model.apply({"params": params}, **batch, packing=packing)
    return jnp.sum(out.last_hidden_state * weights)

  gradient = jax.jit(jax.grad(total, argnums=(0, 1)))
  (packed, packed_embeds), (plain, plain_embeds) = (
    gradient(params, embeds, packing) for packing in (PACKING, None)
  )
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(
      one, other, rtol=1e-4, atol=1e-4
    ),
    packed,
    plain,
  )
  np.testing.assert_allclose(
    packed_embeds * MASK[..., None],
    plain_embeds * MASK[..., None],
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize(
  "model",
  [
    ConvBertModel(DEEP),
    ConvBertForCloze(DEEP.without_conv()),
    *(
      pytest.param(ConvBertModel(config), marks=pytest.mark.slow)
      for config in CONFIGS.values()
    ),
  ],
  ids=["encoder", "cloze", *CONFIGS],
)
def test_segments_of_a_row_see_nothing_of_each_other(model):
  params = {"params": random_params(model, IDS)}

  def run(batch):
    output = model.apply(params, **batch)
    return jax.tree.leaves(output)[0]

  rows = host.first_fit(LENGTHS, ROW)
  batch = host.pack_batch(BATCH, LENGTHS, ROW, 4, dict.fromkeys(BATCH, 0))
  assert batch["segment_ids"].shape == (4, ROW)
  found, expected = jax.jit(run)(batch), jax.jit(run)(BATCH)
  for row, texts in enumerate(rows):
    start = 0
    for text in texts:
      stop = start + LENGTHS[text]
      np.testing.assert_allclose(
        found[row, start:stop], expected[text, : LENGTHS[text]], atol=1e-5
      )
      start = stop


def test_devices_pack_their_texts_without_each_other():
  mesh = sharding.make_mesh(data=4, fsdp=2)
  sources, places = host.plan(RNG.integers(3, 9, 32), 8, 16, num_parts=8)
  given = {
    "texts": np.ones((32, 8, 4), np.float32),
    "sources": sources,
    "places": places,
  }

  def gradient(texts, sources, places):
    def total(texts):
      rows = packing.packed(texts, Packing(sources, places))
      rows = partitioning.constrain(rows, "batch", None, None)
      return jnp.sum(packing.unpacked(rows**2, Packing(sources, places)))

    return jax.grad(total)(texts)

  compiled = (
    jax.jit(
      partitioning.on_mesh(gradient, mesh),
      out_shardings=sharding.batch_sharding(mesh),
    )
    .lower(**sharding.to_global(given, mesh))
    .compile()
  )
  program = compiled.as_text()
  assert "gather" in program
  for sent in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
    assert sent not in program


@pytest.mark.slow
def test_what_comes_with_each_position_is_unpacked_too():
  model = ConvBertModel(DEEP)
  params = {"params": random_params(model, IDS)}
  asked = {"output_hidden_states": True, "output_conv_kernels": True}
  packed = model.apply(params, **BATCH, **asked, packing=PACKING)
  plain = model.apply(params, **BATCH, **asked)
  for one, other in zip(
    jax.tree.leaves(packed), jax.tree.leaves(plain), strict=True
  ):
    real = MASK.reshape(*MASK.shape, *(1,) * (one.ndim - 2))
    np.testing.assert_allclose(one * real, other * real, atol=1e-5)


def test_a_packing_of_another_batch_is_refused():
  model = ConvBertModel(DEEP)
  params = {"params": random_params(model, IDS)}
  other = Packing(*host.plan(LENGTHS, max(LENGTHS) + 1, ROW, num_parts=1))
  with pytest.raises(UserError, match="6 texts of 8 positions for a batch of"):
    model.apply(params, **BATCH, packing=other)


@pytest.mark.slow
def test_padding_of_a_row_may_be_longer_than_the_position_table():
  model = ConvBertModel(DEEP.replace(max_position_embeddings=7))
  params = {"params": random_params(model, IDS)}
  long = host.pack_batch(BATCH, LENGTHS, 40, 2, dict.fromkeys(BATCH, 0))
  found = jax.jit(model.apply)(params, **long).last_hidden_state
  assert np.isfinite(found).all()
  model.apply(params, **long)  # which looks at the positions


@pytest.mark.slow
def test_rows_may_be_longer_than_the_position_table():
  model = ConvBertModel(DEEP.replace(max_position_embeddings=7))
  params = {"params": random_params(model, IDS)}
  plain = model.apply(params, **BATCH).last_hidden_state
  packed = model.apply(params, **BATCH, packing=PACKING).last_hidden_state
  real = MASK[..., None]
  np.testing.assert_allclose(packed * real, plain * real, atol=1e-5)


@pytest.mark.parametrize(
  ("given", "words"),
  [
    ({"output_attentions": True}, "no attentions of single texts"),
    ({"segment_ids": MASK}, "leave segment_ids out"),
    ({"attention_mask": MASK[:, :, None] * MASK[:, None]}, "give .batch, len"),
  ],
)
def test_what_packing_does_not_go_with(given, words):
  model = ConvBertModel(DEEP.without_conv())
  params = {"params": random_params(model, IDS)}
  with pytest.raises(UserError, match=words):
    model.apply(params, **(BATCH | given), packing=PACKING)
