"""The documented class in Python, which transformers keeps for BERT alone."""

import json
import random

import pytest
from live_tokenizers import VOCAB, WORDS, outcome

from convbert_jax import ConvBertTokenizer
from convbert_jax.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def rng():
  return random.Random(0)


def test_documented_methods_of_the_legacy_class(legacy, rng):
  compared = 0
  for side in ("right", "left"):
    them = legacy(VOCAB, truncation_side=side)
    us = ConvBertTokenizer(VOCAB, truncation_side=side)
    for _ in range(300):
      ids = [rng.randrange(len(WORDS)) for _ in range(rng.randint(6, 12))]
      more = [rng.randrange(len(WORDS)) for _ in range(rng.randint(6, 12))]
      pair = (ids, more) if rng.random() < 0.6 else (ids, None)
      for name in (
        "build_inputs_with_special_tokens",
        "create_token_type_ids_from_sequences",
        "get_special_tokens_mask",
      ):
        assert getattr(us, name)(*pair) == getattr(them, name)(*pair), name
      options = {
        "max_length": rng.choice([None, 11, 16, 24]),
        "truncation": rng.choice([True, False, "only_first", "longest_first"]),
        "padding": rng.choice([True, False]),
        "pad_to_multiple_of": rng.choice([None, 8]),
        "stride": rng.choice([0, 2]),
        "return_overflowing_tokens": pair[1] is None,
        "return_special_tokens_mask": rng.random() < 0.5,
        "add_special_tokens": rng.random() < 0.7,
        "return_length": rng.random() < 0.5,
        "return_token_type_ids": rng.choice([True, False]),
        "verbose": False,
      }
      wanted = outcome(them.prepare_for_model, *pair, **options)
      found = outcome(us.prepare_for_model, *pair, **options)
      if isinstance(wanted, ValueError):
        assert isinstance(found, UserError), options
      elif not isinstance(found, UserError):
        assert found.data == dict(wanted), options
        compared += 1
      else:
        assert "tokens are too many" in str(found), (found, options)
  assert compared > 300


def test_documented_settings_of_the_legacy_class(legacy, rng):
  kept = ["quick-brown", "New", "[unused1]", "\u00c9t\u00e9!"]
  kept += [word for word in rng.sample(WORDS, 9) if word.isalpha()]
  for settings in (
    {"never_split": kept},
    {"never_split": kept, "do_lower_case": False},
    {"do_basic_tokenize": False},
  ):
    them = legacy(VOCAB, **settings)
    us = ConvBertTokenizer(VOCAB, **settings)
    for _ in range(500):
      words = rng.choices([*kept, *WORDS], k=rng.randint(0, 9))
      gaps = rng.choices(
        [" ", " ", "\n", "-", "", ", ", "(", ")"], k=len(words)
      )
      text = "".join(map("".join, zip(words, gaps, strict=True)))
      ids = them.convert_tokens_to_ids(them.tokenize(text))
      assert us.encode(text, None, False) == ids, (text, settings)


def test_files_of_the_legacy_class(legacy, tmp_path):
  them = legacy(VOCAB, never_split=["quick-brown"])
  them.add_tokens(["newword"])
  them.add_special_tokens({"additional_special_tokens": ["<e>"]})
  them.save_pretrained(tmp_path)
  text = "a quick-brown newword <e> fox"
  us = ConvBertTokenizer.from_pretrained(tmp_path)
  assert us.encode(text) == them.encode(text)
  assert us.never_split == ["quick-brown"]
  # As older releases wrote them, without added tokens in the settings.
  path = tmp_path / "tokenizer_config.json"
  settings = json.loads(path.read_text())
  del settings["added_tokens_decoder"]
  path.write_text(json.dumps(settings))
  assert ConvBertTokenizer.from_pretrained(tmp_path).encode(text) == (
    them.encode(text)
  )
