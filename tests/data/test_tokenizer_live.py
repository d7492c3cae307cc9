"""Transformers' tokenizers run beside ours: calls and methods."""

import itertools
import json
import random

import pytest
from live_tokenizers import (
  TEXTS,
  VOCAB,
  WORDS,
  assert_same_encoding,
  draw_call,
  draw_pair,
  draw_text,
  outcome,
)

from convbert_jax import ConvBertTokenizer
from convbert_jax.errors import UserError

pytestmark = [
  pytest.mark.slow,
  # Theirs warns of options that do nothing, and of what will be removed.
  pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def rng():
  return random.Random(0)


def test_drawn_calls(theirs, rng):
  refused = 0
  for trial in range(1200):
    if trial % 30 == 0:
      them, us = draw_pair(rng, theirs)
    arguments, options = draw_call(rng)
    wanted = outcome(them, *arguments, **options)
    found = outcome(us, *arguments, **options)
    if isinstance(wanted, BaseException):
      assert isinstance(found, UserError), (found, arguments, options)
      refused += 1
      continue
    assert not isinstance(found, BaseException), (found, arguments, options)
    assert_same_encoding(found, wanted)
    for skip, clean in itertools.product((False, True), (None, False, True)):
      given = {
        "skip_special_tokens": skip,
        "clean_up_tokenization_spaces": clean,
      }
      text = them.decode(wanted["input_ids"], **given)
      assert us.decode(found["input_ids"], **given) == text
  assert 0 < refused < 400


def test_examples_and_random_unicode(theirs, rng):
  for flags in itertools.product((True, False), (True, False), (None, False)):
    names = ("do_lower_case", "tokenize_chinese_chars", "strip_accents")
    settings = dict(zip(names, flags, strict=True))
    them = theirs.ConvBertTokenizer(VOCAB, **settings)
    us = ConvBertTokenizer(VOCAB, **settings)
    texts = TEXTS + [draw_text(rng) for _ in range(400)]
    wanted = them(texts, return_offsets_mapping=True)
    assert_same_encoding(
      us(texts, return_offsets_mapping=True, verbose=False), wanted
    )
    for text in TEXTS:
      assert us.tokenize(text) == them.tokenize(text)


def test_ways_between_text_and_tokens(theirs):
  texts, pairs = (
    ["Hello, na\u00efve \u535a quick!", "a"],
    ["the lazy dog", "an"],
  )
  wanted = theirs.ConvBertTokenizer(VOCAB)(texts, pairs)
  found = ConvBertTokenizer(VOCAB)(texts, pairs)
  for name in ("token_to_sequence", "token_to_word", "token_to_chars"):
    for token in range(len(wanted.tokens())):
      for index in ((token,), (0, token)):
        value = getattr(wanted, name)(*index)
        assert getattr(found, name)(*index) == value, (name, index)
  for name in ("char_to_token", "char_to_word"):
    for side, text in enumerate((texts[0], pairs[0])):
      for char in range(len(text)):
        value = getattr(wanted, name)(0, char, sequence_index=side)
        assert getattr(found, name)(0, char, sequence_index=side) == value
  for name in ("word_to_tokens", "word_to_chars"):
    for word in range(3):
      value = getattr(wanted, name)(0, word, sequence_index=1)
      assert getattr(found, name)(0, word, sequence_index=1) == value


def test_tokens_ids_and_special_tokens(theirs, rng):
  for _ in range(20):
    them, us = draw_pair(rng, theirs)
    assert (len(us), us.vocab_size) == (len(them), them.vocab_size)
    assert us.get_vocab() == them.get_vocab()
    for name in ("all_special_tokens", "all_special_ids", "special_tokens_map"):
      assert getattr(us, name) == getattr(them, name), name
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
      for name in (f"{role}_token", f"{role}_token_id"):
        assert getattr(us, name) == getattr(them, name), name
    assert us.extra_special_tokens == them.extra_special_tokens
    assert us.added_tokens_decoder == them.added_tokens_decoder
    tokens = [*rng.sample(WORDS, 9), "nowhere", "newword"]
    ids = us.convert_tokens_to_ids(tokens)
    assert ids == them.convert_tokens_to_ids(tokens)
    ids += [1, 3, 10**6]
    for skip in (False, True):
      assert us.convert_ids_to_tokens(ids, skip) == them.convert_ids_to_tokens(
        ids, skip
      )
    assert us.convert_tokens_to_string(tokens) == (
      them.convert_tokens_to_string(tokens)
    )
    assert us.batch_decode([ids, ids[:1]], True) == them.batch_decode(
      [ids, ids[:1]], True
    )
    for is_pair in (False, True):
      count = us.num_special_tokens_to_add(is_pair)
      assert count == them.num_special_tokens_to_add(is_pair)
    mask = us.get_special_tokens_mask(ids, already_has_special_tokens=True)
    assert mask == them.get_special_tokens_mask(
      ids, already_has_special_tokens=True
    )
    for new in (["nowhere", "quick", "quick"], ["quick"], [rng.choice(WORDS)]):
      assert us.add_tokens(new) == them.add_tokens(new)
    given = {"cls_token": "<c>", "additional_special_tokens": ["<f>", "brown"]}
    assert us.add_special_tokens(given) == them.add_special_tokens(given)
    assert len(us) == len(them)
    words = ["[UNK]", *WORDS[5:40]]
    missing = theirs.ConvBertTokenizer({w: i for i, w in enumerate(words)})
    ours = ConvBertTokenizer(words)
    assert set(ours.get_vocab()) == set(missing.get_vocab())
    assert ours.vocab_size == missing.vocab_size


def test_padding(theirs, rng):
  them, us = theirs.ConvBertTokenizer(VOCAB), ConvBertTokenizer(VOCAB)
  for trial in range(200):
    rows = us([draw_text(rng) for _ in range(rng.randint(1, 4))], verbose=False)
    given = rows if trial % 3 else {"input_ids": rows.input_ids[0]}
    if trial % 3 == 1:
      given = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values())]
    options = {
      "padding": rng.choice([True, False, "longest", "max_length"]),
      "max_length": 200,
      "pad_to_multiple_of": rng.choice([None, 8]),
      "padding_side": rng.choice([None, "left", "right"]),
      "return_attention_mask": rng.choice([None, True, False]),
      "verbose": False,
    }
    if options["return_attention_mask"] is False:
      given = {"input_ids": rows.input_ids}
    plain = json.loads(json.dumps(given, default=dict))
    assert us.pad(given, **options).data == them.pad(plain, **options).data


def test_tensors_of_pytorch(theirs):
  torch = pytest.importorskip("torch")
  texts = ["Hello", "my dog is cute"]
  options = {"padding": True, "return_tensors": "pt"}
  wanted = theirs.ConvBertTokenizer(VOCAB)(texts, **options)
  us = ConvBertTokenizer(VOCAB)
  found = us(texts, **options)
  for name, column in wanted.items():
    assert (
      torch.equal(found[name], column) and found[name].dtype == column.dtype
    )
  assert us.decode(found.input_ids) == us.decode(wanted.input_ids)
  assert torch.is_tensor(us.pad(found).input_ids)
