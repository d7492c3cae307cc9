"""The flags that every program which builds records has."""

from absl import flags

from convbert_jax.data.build import BuildSettings
from convbert_jax.data.tokenizer import WordPiece, load_tokenizer

flags.disclaim_key_flags()


class BuildFlags:
  """What to build from what, and where."""

  def __init__(self) -> None:
    self._input = flags.DEFINE_list(
      "input",
      None,
      "FILE, folder or glob, or several: .txt, .jsonl or .tar, each plain or"
      " compressed (gz, xz, bz2, zst), .parquet, OpenWebText's *_data.xz.",
      required=True,
    )
    self._vocab = flags.DEFINE_string(
      "vocab", None, "The vocab.txt.", required=True
    )
    self._output = flags.DEFINE_string(
      "output", None, "DIR, the folder of the records.", required=True
    )
    self._max_seq_length = flags.DEFINE_integer(
      "max_seq_length", 128, "N, tokens of an example, special ones included."
    )
    self._held_out = flags.DEFINE_float(
      "held_out", 0.01, "X, share of the documents kept for evaluation."
    )
    self._seed = flags.DEFINE_integer(
      "seed", 0, "N, of random lengths and the choice of held-out documents."
    )
    self._carry_over = flags.DEFINE_bool(
      "carry_over",
      True,
      "Whether text that does not fit an example begins the next; the original"
      " drops it.",
    )
    self._blank_lines_separate = flags.DEFINE_bool(
      "blank_lines_separate",
      False,
      "Whether blank lines separate documents in plain text files.",
    )
    self._shard_characters = flags.DEFINE_integer(
      "shard_characters", 1 << 25, "N, characters of text in a shard."
    )
    self._lowercase = flags.DEFINE_bool(
      "lowercase", True, "Whether to lower-case."
    )
    self._strip_accents = flags.DEFINE_bool(
      "strip_accents",
      None,
      "Whether to remove accents; by default as lowercase.",
    )
    self._handle_chinese_chars = flags.DEFINE_bool(
      "handle_chinese_chars", True, "Whether every CJK ideograph is a word."
    )

  @property
  def inputs(self) -> list[str]:
    """Files, folders and globs."""
    return self._input.value

  @property
  def output(self) -> str:
    """The folder of the records."""
    return self._output.value

  @property
  def settings(self) -> BuildSettings:
    """What decides the records, beside text and tokenizer.

    Raises:
      UserError: if a value is out of range.
    """
    return BuildSettings(
      max_seq_length=self._max_seq_length.value,
      held_out=self._held_out.value,
      seed=self._seed.value,
      carry_over=self._carry_over.value,
      blank_lines_separate=self._blank_lines_separate.value,
      shard_characters=self._shard_characters.value,
    )

  @property
  def tokenizer(self) -> WordPiece:
    """The tokenizer of the vocabulary.

    Raises:
      UserError: if there is none that can be used.
    """
    return load_tokenizer(
      self._vocab.value,
      lowercase=self._lowercase.value,
      strip_accents=self._strip_accents.value,
      handle_chinese_chars=self._handle_chinese_chars.value,
    )
