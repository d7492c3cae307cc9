"""Other ways to round, as another processor has them."""

# Name -> flags of XLA that change how sums are rounded.
ROUNDINGS = {
  "one thread": "--xla_cpu_multi_thread_eigen=false",
  "fast math": "--xla_cpu_enable_fast_math=true",
  "no algebraic simplification": "--xla_disable_hlo_passes=algsimp",
  "no fused multiply-add": "--xla_cpu_max_isa=SSE4_2",
  "narrow vectors": "--xla_cpu_prefer_vector_width=128",
}
