"""What transformers' tokenizers and ours are both called with."""

import pathlib

from convbert_jax import ConvBertTokenizer

VOCAB = str(pathlib.Path(__file__).parent / "golden/tokenizer_vocab.txt")
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
