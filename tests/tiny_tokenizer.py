"""A tokenizer of thirteen tokens."""

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "un", "##aff", "##able", "hello", "world", ",", "東", "京"]


def make(words=WORDS, **settings):
  return ConvBertTokenizer(words, **settings)
