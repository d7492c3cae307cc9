"""A ConvBERT small enough for any test."""

from convbert_jax.model.config import ConvBertConfig

TINY = ConvBertConfig(
  vocab_size=50, embedding_size=8, hidden_size=16, num_hidden_layers=1,
  num_attention_heads=4, intermediate_size=32, conv_kernel_size=3,
  max_position_embeddings=64,
)  # fmt: skip
