"""Transformers' tokenizers run beside ours: calls, methods, files."""

import itertools
import json
import pathlib
import random

import numpy as np
import pytest

from convbert_jax import ConvBertTokenizer
from convbert_jax.errors import UserError

pytestmark = [
  pytest.mark.slow,
  # Theirs warns of options that do nothing, and of what will be removed.
  pytest.mark.filterwarnings("default"),
]

VOCAB = str(pathlib.Path(__file__).parents[1] / "golden/tokenizer_vocab.txt")
WORDS = pathlib.Path(VOCAB).read_text(encoding="utf-8").split("\n")[:-1]
RANGES = [(0, 0x250), (0x20, 0x7F), (0x300, 0x370), (0x2000, 0x3100)]
RANGES += [(0x4E00, 0x9FFF), (0x250, 0xD7FF), (0xE000, 0x1FFFF)]
TEXTS = [
  "", " ", "UNwant\u00e9d,running", " \tHeLLo!how  \n Are yoU?  ",
  " \tH\u00e4LLo!how  \n Are yoU?  ", "H\u00e9llo", "ah\u535a\u63a8zz",
  "a\u0000\u200b\u200d\ufeffb \u00adsoft\u00ad hyphen \ufffd",
  "x\u00a0y\u2028z\u3000w\u0085v",
  "$5.00 \u00a36 `a` ^b^ \u2014 \u00bfqu\u00e9?",
  "A, na\u00efve [MASK] AllenNLP sentence.", "[CLS] [SEP][MASK][mask] [PAD]",
  "x" * 100, "x" * 101, "\u0915\u093f \U0001f600\u200d\U0001f600 \uac00",
]  # fmt: skip

# What differs: a call, what theirs does, and the reason. Ours refuses each in
# one line, or does what is said.
DIFFERENCES = {
  # An empty batch is a batch.
  "an empty batch": (lambda t: t([]).input_ids, IndexError, []),
  # Ragged rows would be an array of objects, which no model takes.
  "arrays of ragged rows": (
    lambda t: t(["a", "a b"], return_tensors="np").input_ids.dtype,
    np.dtype(object),
    "padding=True",
  ),
  # Token ids are 32 bits in JAX.
  "the type of arrays": (
    lambda t: t("a", return_tensors="np").input_ids.dtype,
    np.dtype(np.int64),
    np.dtype(np.int32),
  ),
  "arrays of JAX": (
    lambda t: t("a", return_tensors="jax").input_ids.shape,
    ValueError,
    (1, 3),
  ),
  # A limit that is ignored makes rows that are too long.
  "no room for special tokens": (
    lambda t: len(t("a b c", max_length=1).input_ids), 5, "give 2 or more"
  ),
  # Where room is left for nothing, there is nothing to share.
  "a stride without room": (
    lambda t: t(("a",), ("b c",), max_length=3, stride=1).input_ids,
    [[2, 3, 3]],
    "stride=1",
  ),
  # No ConvBERT has more positions.
  "the default length": (
    lambda t: t.model_max_length, int(1e30), 512
  ),
  "padding without a length": (
    lambda t: _unlimited(t)("a", padding="max_length").input_ids,
    [2, 33, 3],
    "give max_length",
  ),
  # Columns of unlike lengths are no rows.
  "a mask that is there already": (
    lambda t: t.pad(
      {"input_ids": [33], "attention_mask": [1]},
      "max_length",
      max_length=2,
      return_attention_mask=False,
    )["attention_mask"],
    [1],
    [1, 0],
  ),
  # Theirs has lost what it counts by.
  "tokens counted from the end": (
    lambda t: t("a").token_to_word(-2), AttributeError, 0
  ),
  # A mistyped name would do nothing.
  "unknown options": (
    lambda t: len(t("a", max_lenth=3)), 3, TypeError
  ),
  "unknown settings": (
    lambda t: len(type(t)(VOCAB, do_lowercase=False)), 223, "do_lower_case"
  ),
  "no vocabulary": (lambda t: len(type(t)()), 5, "no vocabulary"),
  # Negative ids are labels that are ignored, or a mistake.
  "tokens of negative ids": (
    lambda t: t.decode([-1]), OverflowError, "ids start at 0"
  ),
  # Both are documented, and do nothing in theirs.
  "words that are never split": (
    lambda t: type(t)(VOCAB, never_split=["quick-brown"]).tokenize(
      "a quick-brown"
    ),
    ["a", "quick", "-", "brown"],
    ["a", "[UNK]"],
  ),
  "no basic tokenisation": (
    lambda t: type(t)(VOCAB, do_basic_tokenize=False).tokenize("A quick,"),
    ["a", "quick", ","],
    ["[UNK]", "[UNK]"],
  ),
  # Documented methods that theirs no longer has.
  "builders of rows": (
    lambda t: t.build_inputs_with_special_tokens([33]),
    AttributeError,
    [2, 33, 3],
  ),
  "rows of ids": (
    lambda t: t.prepare_for_model([33]).input_ids, AttributeError, [2, 33, 3]
  ),
  "older names of calls": (
    lambda t: t.encode_plus("a").input_ids, AttributeError, [2, 33, 3]
  ),
  "masks of ids without special tokens": (
    lambda t: t.get_special_tokens_mask([33]), NotImplementedError, [1, 0, 1]
  ),
}  # fmt: skip


def _unlimited(tokenizer):
  tokenizer.model_max_length = 10**30
  return tokenizer


@pytest.fixture(scope="module")
def theirs():
  """The module transformers, silenced."""
  transformers = pytest.importorskip("transformers")
  transformers.logging.set_verbosity(transformers.logging.CRITICAL)
  return transformers


@pytest.fixture(scope="module")
def legacy(theirs):
  """The documented tokenizer, in Python, which transformers keeps for BERT."""
  from transformers.models.bert import tokenization_bert_legacy

  return tokenization_bert_legacy.BertTokenizerLegacy


@pytest.fixture
def rng():
  return random.Random(0)


def draw_text(rng):
  """Returns words of the vocabulary among random characters."""
  parts = []
  for _ in range(rng.randint(0, 12)):
    if rng.random() < 0.6:
      parts.append(rng.choice(WORDS) + rng.choice([" ", "", " ", "\n"]))
    else:
      letters = (rng.choice(RANGES) for _ in range(rng.randint(1, 5)))
      parts.append("".join(chr(rng.randint(*letter)) for letter in letters))
  return "".join(parts)


def draw_call(rng):
  """Returns arguments and options of a call."""
  size = rng.randint(1, 4)
  one = lambda: draw_text(rng)  # noqa: E731
  split = lambda: draw_text(rng).split() or ["a"]  # noqa: E731
  draw = one if rng.random() < 0.7 else split
  batch = lambda: [draw() for _ in range(size)]  # noqa: E731
  arguments = rng.choice(
    [
      lambda: (draw(),),
      lambda: (draw(), draw()),
      lambda: (batch(),),
      lambda: (batch(), batch()),
      lambda: (list(zip(batch(), batch(), strict=True)),),
    ]
  )()
  flags = ("special_tokens_mask", "offsets_mapping", "overflowing_tokens")
  options = {f"return_{flag}": rng.random() < 0.4 for flag in flags}
  options |= {
    "is_split_into_words": draw is split,
    "add_special_tokens": rng.random() < 0.7,
    "padding": rng.choice([False, True, "longest", "max_length", "do_not_pad"]),
    "truncation": rng.choice(
      [None, False, True, "only_first", "only_second", "do_not_truncate"]
    ),
    "max_length": rng.choice([None, None, 5, 8, 16, 24]),
    "stride": rng.choice([0, 0, 1]),
    "pad_to_multiple_of": rng.choice([None, None, 4, 8]),
    "padding_side": rng.choice([None, "left", "right"]),
    "return_length": rng.random() < 0.5,
    "return_token_type_ids": rng.choice([None, True, False]),
    "return_attention_mask": rng.choice([None, True, False]),
    "verbose": False,
  }
  return arguments, options


def draw_pair(rng, theirs):
  """Returns both tokenizers with the same settings and added tokens."""
  settings = {
    "do_lower_case": rng.random() < 0.7,
    "tokenize_chinese_chars": rng.random() < 0.7,
    "strip_accents": rng.choice([None, None, True, False]),
    "padding_side": rng.choice(["left", "right"]),
    "truncation_side": rng.choice(["left", "right"]),
    "model_max_length": rng.choice([16, 512]),
  }
  pair = [
    cls(VOCAB, **settings)
    for cls in (theirs.ConvBertTokenizer, ConvBertTokenizer)
  ]
  words = rng.sample(["newword", "XyZ", "foo-bar", "\u00c9", "quick"], 2)
  is_special = rng.random() < 0.5
  roles = {"mask_token": "<m>", "additional_special_tokens": ["<e>", "[X]"]}
  has_roles = rng.random() < 0.5
  for tokenizer in pair:
    tokenizer.add_tokens(words, special_tokens=is_special)
    if has_roles:
      tokenizer.add_special_tokens(dict(roles))
  return pair


def outcome(call, *arguments, **options):
  """Returns what a call returns, or the exception that it raises."""
  try:
    return call(*arguments, **options)
  # A panic of the library that both use is no Exception.
  except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
      raise
    return error


def assert_same_encoding(found, wanted):
  assert dict(found) == dict(wanted)
  for row in range(len(wanted.encodings)):
    for name in ("tokens", "word_ids", "sequence_ids"):
      assert getattr(found, name)(row) == getattr(wanted, name)(row)


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
    words = WORDS[5:40]
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


def test_documented_methods_of_the_legacy_class(legacy, rng):
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
      else:
        assert "tokens are too many" in str(found), (found, options)


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


def test_files_go_both_ways(theirs, rng, tmp_path):
  for trial in range(8):
    them, us = draw_pair(rng, theirs)
    texts = [draw_text(rng) + " newword <e> [X] <m> XyZ" for _ in range(20)]
    wanted = them(texts).input_ids
    them.save_pretrained(tmp_path / f"theirs{trial}")
    us.save_pretrained(tmp_path / f"ours{trial}")
    for folder in (f"theirs{trial}", f"ours{trial}"):
      for cls in (theirs.ConvBertTokenizer, theirs.AutoTokenizer):
        again = cls.from_pretrained(tmp_path / folder)
        assert again(texts).input_ids == wanted, folder
        assert again.all_special_tokens == us.all_special_tokens
        assert again.model_max_length == us.model_max_length
      ours = ConvBertTokenizer.from_pretrained(tmp_path / folder)
      assert ours(texts, verbose=False).input_ids == wanted, folder
      assert ours.all_special_tokens == us.all_special_tokens
      assert ours.padding_side == them.padding_side
      assert ours.model_max_length == us.model_max_length


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


def test_settings_change_after_saving(theirs, tmp_path):
  text = "ah\u535a\u63a8zz H\u00c9llo"
  theirs.BertTokenizer(VOCAB).save_pretrained(tmp_path)
  for name in ("tokenize_chinese_chars", "do_lower_case", "strip_accents"):
    for value in (True, False):
      them, us = (
        cls.from_pretrained(tmp_path, **{name: value})
        for cls in (theirs.BertTokenizer, ConvBertTokenizer)
      )
      assert us.tokenize(text) == them.tokenize(text), (name, value)


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


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_differs(theirs, name):
  call, wanted, ours = DIFFERENCES[name]
  for cls, expected in (
    (theirs.ConvBertTokenizer, wanted),
    (ConvBertTokenizer, ours),
  ):
    found = outcome(call, cls(VOCAB))
    if isinstance(expected, type) and issubclass(expected, Exception):
      assert isinstance(found, expected), found
    elif isinstance(found, UserError):
      assert expected in str(found)
    else:
      assert found == expected
