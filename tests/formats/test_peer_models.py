"""What transformers' own tests assert of its ConvBERT, on ours beside it.

Sizes are those of its tests. Where ours differs, a test says so by name:
`test_ours_differs_...`.
"""

import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convbert_jax
from convbert_jax import ConvBertConfig
from convbert_jax.errors import UserError

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BATCH, LENGTH, CHOICES = 13, 7, 4
SIZES = {
  "vocab_size": 99,
  "embedding_size": 32,
  "hidden_size": 32,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "intermediate_size": 37,
  "max_position_embeddings": 16,
  "type_vocab_size": 16,
}
HEADS = [
  "Model",
  "ForMaskedLM",
  "ForSequenceClassification",
  "ForTokenClassification",
  "ForMultipleChoice",
  "ForQuestionAnswering",
]
VALUES = {"rtol": 0, "atol": 3e-5}


def make_inputs(name="Model", seed=0):
  """Random ids, masks with holes, segments of all kinds."""
  rng = np.random.default_rng(seed)
  choices = (CHOICES,) if name == "ForMultipleChoice" else ()
  shape = (BATCH, *choices, LENGTH)
  mask = rng.integers(0, 2, shape)
  mask[..., 0] = 1
  return {
    "input_ids": rng.integers(0, 99, shape),
    "attention_mask": mask,
    "token_type_ids": rng.integers(0, 16, shape),
  }


def make_labels(name, rng):
  if name == "ForQuestionAnswering":
    positions = ("start_positions", "end_positions")
    return {field: rng.integers(0, LENGTH, BATCH) for field in positions}
  counts = {
    "ForMaskedLM": ((BATCH, LENGTH), 99),
    "ForSequenceClassification": ((BATCH,), 3),
    "ForTokenClassification": ((BATCH, LENGTH), 3),
    "ForMultipleChoice": ((BATCH,), CHOICES),
  }
  if name not in counts:
    return {}
  shape, count = counts[name]
  return {"labels": rng.integers(0, count, shape)}


def make_theirs(name, **fields):
  config = transformers.ConvBertConfig(
    **{**SIZES, "num_labels": 3, **fields}, attn_implementation="eager"
  )
  if name == "ForQuestionAnswering":
    config.num_labels = 2
  torch.manual_seed(0)
  model = getattr(transformers, f"ConvBert{name}")(config).eval()
  for weight in model.parameters():
    weight.data = weight.data + 0.1 * torch.randn(weight.shape)
  return model


def make_both(tmp_path, name="Model", **fields):
  """Their model, and ours as it reads the folder that theirs writes."""
  theirs = make_theirs(name, **fields)
  theirs.save_pretrained(tmp_path / name)
  cls = getattr(convbert_jax, f"ConvBert{name}")
  return theirs, cls.from_pretrained(str(tmp_path / name))


def run_theirs(model, given, **options):
  return model(**{n: torch.tensor(a) for n, a in given.items()}, **options)


def assert_same(ours, theirs):
  """Compares everything that both returned, and in which order."""
  assert [*ours] == [*theirs]
  for name in theirs:
    pairs = [(ours[name], theirs[name])]
    if isinstance(theirs[name], tuple):
      pairs = list(zip(ours[name], theirs[name], strict=True))
    for found, expected in pairs:
      np.testing.assert_allclose(
        found, expected.detach().numpy(), **VALUES, err_msg=name
      )


@pytest.mark.parametrize("name", HEADS)
def test_every_class_returns_the_same_in_the_same_order(tmp_path, name):
  theirs, ours = make_both(tmp_path, name)
  given = make_inputs(name)
  given |= make_labels(name, np.random.default_rng(1))
  options = {"output_hidden_states": True, "output_attentions": True}
  found, expected = (
    ours(**given, **options),
    run_theirs(theirs, given, **options),
  )
  assert_same(found, expected)
  assert len(found.attentions) == 2 == len(found.hidden_states) - 1
  rows = BATCH * (CHOICES if name == "ForMultipleChoice" else 1)
  assert found.attentions[0].shape == (rows, 2, LENGTH, LENGTH)
  for place, array in enumerate(expected.to_tuple()[:2]):
    if not isinstance(array, tuple):
      np.testing.assert_allclose(found[place], array.detach(), **VALUES)
  # By the config, and as a tuple.
  asking = type(ours)(
    ours.module.clone(config=ours.config.replace(**options, return_dict=False)),
    ours.params,
  )
  assert len(asking(**given)) == len(found)
  # Saved and loaded.
  ours.save_pretrained(tmp_path / "again")
  cls = getattr(transformers, f"ConvBert{name}")
  again, told = cls.from_pretrained(
    tmp_path / "again", attn_implementation="eager", output_loading_info=True
  )
  assert not any(told.values()), told
  assert_same(found, run_theirs(again, given, **options))


@pytest.mark.parametrize(
  "fields",
  [
    {"head_ratio": 1, "num_attention_heads": 2},
    {"head_ratio": 4, "conv_kernel_size": 3},
    {"num_groups": 2, "intermediate_size": 36, "embedding_size": 20},
    {"layer_norm_eps": 0.1, "hidden_act": "relu"},
    {"hidden_act": "gelu_new"},
    {"hidden_act": "quick_gelu", "chunk_size_feed_forward": 1},
    {"num_attention_heads": 5, "hidden_size": 40},
    {"num_attention_heads": 6, "head_ratio": 4},
  ],
  ids=str,
)
def test_every_geometry_computes_the_same(tmp_path, fields):
  theirs, ours = make_both(tmp_path, **fields)
  given = make_inputs()
  assert_same(ours(**given), run_theirs(theirs, given))


def test_inputs_of_other_kinds(tmp_path):
  theirs, ours = make_both(tmp_path)
  given = make_inputs()
  plain = ours(**given)[0]
  words = ours.get_input_embeddings()[given["input_ids"]]
  embedded = {**given, "inputs_embeds": np.asarray(words)}
  del embedded["input_ids"]
  np.testing.assert_allclose(ours(**embedded)[0], plain, **VALUES)
  assert_same(ours(**embedded), run_theirs(theirs, embedded))
  for positions in (
    np.arange(LENGTH)[None] + 2,
    np.random.default_rng(0).integers(0, 16, (BATCH, LENGTH)),
  ):
    moved = {**given, "position_ids": positions}
    assert_same(ours(**moved), run_theirs(theirs, moved))
  floats = {**given, "attention_mask": given["attention_mask"].astype("f4")}
  np.testing.assert_array_equal(ours(**floats)[0], plain)
  ids = {"input_ids": given["input_ids"]}
  assert_same(ours(**ids), run_theirs(theirs, ids))


def test_choices_as_embeddings(tmp_path):
  theirs, ours = make_both(tmp_path, "ForMultipleChoice")
  given = make_inputs("ForMultipleChoice")
  words = ours.get_input_embeddings()[given.pop("input_ids")]
  given["inputs_embeds"] = np.asarray(words)
  assert_same(ours(**given), run_theirs(theirs, given))


@pytest.mark.parametrize(
  "fields",
  [
    {"summary_type": "first"},
    {"summary_type": "mean", "summary_activation": "tanh"},
    {
      "summary_type": "cls_index",
      "summary_use_proj": True,
      "summary_activation": "gelu",
      "summary_first_dropout": 0.1,
      "summary_last_dropout": 0.2,
    },
    {
      "summary_use_proj": True,
      "summary_proj_to_labels": True,
      "num_labels": 32,
    },
  ],
  ids=str,
)
def test_summaries_of_choices(tmp_path, fields):
  theirs, ours = make_both(tmp_path, "ForMultipleChoice", **fields)
  given = make_inputs("ForMultipleChoice")
  assert_same(ours(**given), run_theirs(theirs, given))
  rates = (
    ours.config.summary_first_dropout,
    ours.config.summary_last_dropout,
  )
  drops = ours(**given, training=True, dropout_key=jax.random.key(0))
  assert any(rates) == bool(fields.get("summary_first_dropout"))
  assert np.abs(drops.logits - ours(**given).logits).max() > 0


@pytest.mark.parametrize(
  ("num_labels", "labels", "problem"),
  [
    (3, np.arange(BATCH) % 3, "single_label_classification"),
    (3, (np.arange(BATCH) % 3)[:, None], "single_label_classification"),
    (3, np.eye(3, dtype="f4")[np.arange(BATCH) % 3], "multi_label"),
    (1, np.linspace(0, 1, BATCH, dtype="f4"), "regression"),
    (1, np.linspace(0, 1, BATCH, dtype="f4")[:, None], "regression"),
  ],
)
@pytest.mark.parametrize("is_said", [True, False])
def test_problem_types_said_and_inferred(
  tmp_path, num_labels, labels, problem, is_said
):
  problem += "_classification" if problem == "multi_label" else ""
  fields = {"num_labels": num_labels}
  if is_said:
    fields["problem_type"] = problem
  theirs, ours = make_both(tmp_path, "ForSequenceClassification", **fields)
  given = {**make_inputs(), "labels": labels}
  assert_same(ours(**given), run_theirs(theirs, given))


def test_a_regression_of_several_targets(tmp_path):
  theirs, ours = make_both(
    tmp_path, "ForSequenceClassification", problem_type="regression"
  )
  targets = np.random.default_rng(0).normal(size=(BATCH, 3)).astype("f4")
  given = {**make_inputs(), "labels": targets}
  assert_same(ours(**given), run_theirs(theirs, given))


def test_labels_that_do_not_count(tmp_path):
  for name in ("ForMaskedLM", "ForTokenClassification"):
    theirs, ours = make_both(tmp_path, name)
    given = {**make_inputs(), **make_labels(name, np.random.default_rng(0))}
    given["labels"][:, 2:] = -100
    assert_same(ours(**given), run_theirs(theirs, given))
    given["labels"][:] = -100
    assert np.isnan(run_theirs(theirs, given).loss.item())
    assert np.isnan(ours(**given).loss)
  theirs, ours = make_both(tmp_path, "ForQuestionAnswering")
  starts = np.array([-1, LENGTH, LENGTH + 3, *range(BATCH - 3)])[:, None]
  given = {
    **make_inputs(),
    "start_positions": starts,
    "end_positions": starts[::-1].copy(),
  }
  assert_same(ours(**given), run_theirs(theirs, given))


def test_masked_heads_put_nothing_out_and_get_no_gradient(tmp_path):
  """Documented; transformers itself takes no head mask any more."""
  _, ours = make_both(tmp_path)
  given = make_inputs()
  for head_mask in (np.array([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 1.0]])):

    def loss(params, head_mask=head_mask):
      found = ours.module.apply(
        {"params": params}, **given, head_mask=jnp.asarray(head_mask)
      )
      return (found.last_hidden_state**2).sum()

    grads = jax.grad(loss)(ours.params)["encoder"]["layers"]["attention"]
    per_head = np.asarray(grads["value"]["kernel"]).reshape(2, 32, 2, 8)
    masked = np.broadcast_to(head_mask, (2, 2)) == 0
    moved = np.abs(per_head).max(axis=(1, 3)) > 0
    np.testing.assert_array_equal(moved, ~masked)


def test_nothing_random_without_dropout_and_a_finite_step_with_it(tmp_path):
  _, ours = make_both(tmp_path, "ForSequenceClassification")
  given = {**make_inputs(), "labels": np.arange(BATCH) % 3}
  np.testing.assert_array_equal(ours(**given).logits, ours(**given).logits)

  def loss(params):
    return ours.module.apply(
      {"params": params},
      **given,
      deterministic=False,
      rngs={"dropout": jax.random.key(0)},
    ).loss

  value, grads = jax.jit(jax.value_and_grad(loss))(ours.params)
  assert np.isfinite(value)
  for leaf in jax.tree.leaves(grads):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0


def test_initial_values(tmp_path):
  """Zero and one where theirs are; their spread but for a cut at two of it."""
  config = ConvBertConfig(**SIZES, head_size_rule="hf", initializer_range=0.05)
  model = convbert_jax.ConvBertForMaskedLM.from_config(config)
  flat = flax.traverse_util.flatten_dict(model.params, sep="/")
  spreads = {}
  for path, leaf in flat.items():
    if path.endswith("scale"):
      assert (leaf == 1).all()
    elif path.endswith("bias"):
      assert (leaf == 0).all()
    else:
      spreads[path] = float(np.std(leaf))
  assert len(spreads) > 10
  for path, spread in spreads.items():
    if not path.endswith("depthwise_kernel"):  # see below
      assert spread == pytest.approx(0.88 * 0.05, rel=0.3), path


def test_vocabularies_are_resized(tmp_path):
  theirs, ours = make_both(tmp_path, "ForMaskedLM")
  given = make_inputs()
  given["input_ids"] = given["input_ids"] % 80
  for num_tokens in (89, 109):
    theirs.resize_token_embeddings(num_tokens)
    ours.resize_token_embeddings(num_tokens)
    assert ours.config.vocab_size == theirs.config.vocab_size == num_tokens
    kept = ours(**given).logits[..., :89]
    assert ours(**given).logits.shape[-1] == num_tokens
    expected = run_theirs(theirs, given).logits[..., :89]
    np.testing.assert_allclose(kept, expected.detach(), **VALUES)


@pytest.mark.parametrize(
  "fields",
  [
    {"tie_word_embeddings": False},
    {"hidden_act": "relu"},
    {"hidden_act": "tanh", "tie_word_embeddings": False},
  ],
  ids=str,
)
def test_language_heads_untied_and_beside_another_activation(tmp_path, fields):
  theirs, ours = make_both(tmp_path, "ForMaskedLM", **fields)
  given = {
    **make_inputs(),
    **make_labels("ForMaskedLM", np.random.default_rng(0)),
  }
  assert_same(ours(**given), run_theirs(theirs, given))
  ours.save_pretrained(tmp_path / "again")
  again = transformers.ConvBertForMaskedLM.from_pretrained(tmp_path / "again")
  assert_same(ours(**given), run_theirs(again.eval(), given))
  ours.save_pretrained(f"orbax:{tmp_path / 'ours'}")
  own = convbert_jax.ConvBertForMaskedLM.from_pretrained(str(tmp_path / "ours"))
  assert own.module == ours.module


def test_other_heads_and_other_numbers_of_labels(tmp_path):
  make_both(tmp_path, "ForSequenceClassification")
  folder = str(tmp_path / "ForSequenceClassification")
  cls = convbert_jax.ConvBertForSequenceClassification
  with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
    transformers.ConvBertForSequenceClassification.from_pretrained(
      folder, num_labels=42
    )
  with pytest.raises(UserError, match="ignore_mismatched_sizes"):
    cls.from_pretrained(folder, num_labels=42)
  with pytest.warns(UserWarning, match="classifier/out_proj"):
    ours = cls.from_pretrained(
      folder, num_labels=42, ignore_mismatched_sizes=True
    )
  assert ours(**make_inputs()).logits.shape == (BATCH, 42)
  with pytest.warns(UserWarning, match="qa_outputs/bias, qa_outputs/kernel"):
    convbert_jax.ConvBertForQuestionAnswering.from_pretrained(folder)


def test_bfloat16_runs_and_what_is_out_of_range_does_not(tmp_path):
  theirs, ours = make_both(tmp_path)
  given = make_inputs()
  half = convbert_jax.ConvBertModel.from_pretrained(
    str(tmp_path / "Model"), dtype="bfloat16"
  )
  found = half(**given)[0]
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    found.astype("float32"), ours(**given)[0], atol=0.2
  )
  for wrong in (
    {"input_ids": given["input_ids"] + 99},
    {"token_type_ids": given["token_type_ids"] + 16},
    {"position_ids": np.arange(LENGTH)[None] + 10},
  ):
    with pytest.raises(IndexError):
      run_theirs(theirs, {**given, **wrong})
    with pytest.raises(UserError, match="out of range"):
      ours(**{**given, **wrong})
  long = {"input_ids": np.zeros((2, 17), int)}
  with pytest.raises(RuntimeError):
    run_theirs(theirs, long)
  with pytest.raises(UserError, match="max_position_embeddings=16"):
    ours(**long)


def test_configs_are_read_by_the_other_side(tmp_path):
  fields = {
    **SIZES,
    "head_ratio": 4,
    "conv_kernel_size": 5,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.3,
    "initializer_range": 0.03,
    "layer_norm_eps": 1e-6,
    "pad_token_id": 5,
    "bos_token_id": 6,
    "eos_token_id": 7,
    "classifier_dropout": 0.25,
    "problem_type": "regression",
    "id2label": {0: "a", 1: "b", 2: "c"},
    "label2id": {"a": 0, "b": 1, "c": 2},
    "output_hidden_states": True,
  }
  theirs = transformers.ConvBertConfig(**fields)
  theirs.save_pretrained(tmp_path / "theirs")
  ours = ConvBertConfig.from_pretrained(tmp_path / "theirs")
  # What means nothing here is in the file only if it is not a default.
  found = ConvBertConfig.from_dict(theirs.to_dict(), other_entries="{}")
  assert ours.replace(other_entries="{}") == found
  ours.save_pretrained(tmp_path / "ours")
  again = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
  for name, value in fields.items():
    assert getattr(theirs, name) == getattr(again, name) == value
    found = getattr(ours, name)
    assert (dict(found) if name.endswith(("label", "2id")) else found) == value
  assert json.loads(ours.to_json_string())["model_type"] == "convbert"
  with pytest.raises(KeyError):
    make_theirs("Model", hidden_act="gelu_nw")
  with pytest.raises(UserError, match="gelu_new"):
    ConvBertConfig(hidden_act="gelu_nw")


def test_documented_defaults_are_the_same():
  theirs, ours = transformers.ConvBertConfig(), ConvBertConfig()
  for name in (*SIZES, "head_ratio", "conv_kernel_size", "num_groups",
               "hidden_act", "hidden_dropout_prob", "layer_norm_eps",
               "attention_probs_dropout_prob", "initializer_range",
               "pad_token_id", "bos_token_id", "eos_token_id",
               "classifier_dropout", "num_labels", "return_dict"):  # fmt: skip
    assert getattr(ours, name) == getattr(theirs, name), name


def test_ours_differs_in_the_initial_values_of_heads_and_of_convolutions():
  """The original names no initialiser for heads: TensorFlow's is Glorot's."""
  config = ConvBertConfig(**SIZES, head_size_rule="hf", num_labels=3)
  ours = convbert_jax.ConvBertForTokenClassification.from_config(config)
  kernel = np.asarray(ours.params["classifier"]["kernel"])
  bound = np.sqrt(6 / sum(kernel.shape))
  assert 0.5 * bound < np.abs(kernel).max() <= bound
  assert np.std(kernel) > 5 * config.initializer_range
  conv = ours.params["convbert"]["encoder"]["layers"]["attention"]["conv_key"]
  # That of the original: one over the window.
  spread = float(np.std(conv["depthwise_kernel"]))
  assert spread == pytest.approx(0.88 / config.conv_kernel_size, rel=0.1)


def test_ours_differs_in_the_pads_row_of_the_word_table(tmp_path):
  """In the original it is a row like any other, and trained."""
  theirs, ours = make_both(tmp_path)
  given = {"input_ids": np.full((BATCH, LENGTH), theirs.config.pad_token_id)}
  run_theirs(theirs, given).last_hidden_state[..., ::2].pow(2).sum().backward()
  row = theirs.get_input_embeddings().weight.grad[theirs.config.pad_token_id]
  assert not row.any()

  def loss(params):
    found = ours.module.apply({"params": params}, **given)
    return (found.last_hidden_state[..., ::2] ** 2).sum()

  grads = jax.grad(loss)(ours.params)["embeddings"]["word_embeddings"]
  assert np.abs(grads[ours.config.pad_token_id]).max() > 0


def test_ours_differs_in_masks_of_pairs_of_tokens(tmp_path):
  """Their convolutions see through such a mask; ours refuse it."""
  theirs, ours = make_both(tmp_path)
  given = make_inputs()
  mask = np.tril(np.ones((BATCH, LENGTH, LENGTH), int))
  run_theirs(theirs, {**given, "attention_mask": mask[:, None].astype("f4")})
  with pytest.raises(UserError, match="cannot respect a mask for each query"):
    ours(**{**given, "attention_mask": mask})


def test_ours_differs_in_whole_numbers_for_several_labels(tmp_path):
  """Theirs fails on them: it takes them for single labels."""
  theirs, ours = make_both(tmp_path, "ForSequenceClassification")
  labels = np.eye(3, dtype=int)[np.arange(BATCH) % 3]
  given = make_inputs()
  with pytest.raises(ValueError, match="batch_size"):
    run_theirs(theirs, {**given, "labels": labels})
  theirs.config.problem_type = None  # It has kept what it inferred.
  found = ours(**given, labels=labels).loss
  expected = run_theirs(
    theirs, {**given, "labels": labels.astype("f4")}
  ).loss.item()
  assert float(found) == pytest.approx(expected, abs=1e-5)


def test_ours_differs_in_an_activation_that_is_documented(tmp_path):
  """`selu`, which transformers does not know."""
  with pytest.raises(KeyError):
    make_theirs("Model", hidden_act="selu")
  config = ConvBertConfig(**SIZES, head_size_rule="hf", hidden_act="selu")
  model = convbert_jax.ConvBertModel.from_config(config)
  assert np.isfinite(model(**make_inputs())[0]).all()
