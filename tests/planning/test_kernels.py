"""Kernels are counted as one would by hand."""

import jax
import jax.numpy as jnp
import pytest

from convbert_jax.planning import collectives, kernels, program_text

LAYERS, ROWS, WIDTH = 5, 64, 128
FLOAT = 4


def program_of(text):
  return program_text.parse(f"HloModule by_hand\n\n{text}")


def compiled(function, *arguments):
  text = jax.jit(function).lower(*arguments).compile().as_text()
  return kernels.kernels(program_text.parse(text))


def test_a_product_and_a_sum_written_by_a_gpu():
  found = kernels.kernels(
    program_of("""
%fused.1 (a.1: bf16[8,16], b.1: bf16[8]) -> f32[8] {
  %a.1 = bf16[8,16]{1,0} parameter(0)
  %b.1 = bf16[8]{0} parameter(1)
  %wide.1 = f32[8,16]{1,0} convert(%a.1)
  %zero.1 = f32[] constant(0)
  ROOT %sum.1 = f32[8]{0} reduce(%wide.1, %zero.1), dimensions={1}, \
to_apply=%add
}

ENTRY %main (x.1: bf16[8,32], w.1: bf16[32,16], b.2: bf16[8]) -> f32[8] {
  %x.1 = bf16[8,32]{1,0} parameter(0)
  %w.1 = bf16[32,16]{1,0} parameter(1)
  %b.2 = bf16[8]{0} parameter(2)
  %gemm.1 = (bf16[8,16]{1,0}, s8[4096]{0}) custom-call(%x.1, %w.1), \
custom_call_target="__cublas$gemm", metadata={op_name="jit(f)/layer/dot"}, \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":\
{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %y.1 = bf16[8,16]{1,0} get-tuple-element(%gemm.1), index=0
  ROOT %out.1 = f32[8]{0} fusion(%y.1, %b.2), kind=kInput, calls=%fused.1
}
""")
  )
  product, total = found
  # Read 8 x 32 and 32 x 16, write 8 x 16; cuBLAS's scratch is not counted.
  assert product.num_bytes == 2 * (8 * 32 + 32 * 16 + 8 * 16)
  assert product.flops == 2 * 8 * 16 * 32
  assert (product.dtype, product.source) == ("bf16", "jit(f)/layer/dot")
  # What the fusion is given and does not use is not read.
  assert total.num_bytes == 2 * 8 * 16 + FLOAT * 8
  assert (total.flops, total.dtype) == (0, "")


def test_what_is_gathered_from_a_padded_array_counts_as_gathered():
  (found,) = kernels.kernels(
    program_of("""
%fused.1 (a.1: f32[8,30], i.1: s32[2]) -> f32[8,4] {
  %a.1 = f32[8,30]{1,0} parameter(0)
  %i.1 = s32[2]{0} parameter(1)
  %e.1 = f32[8,30]{1,0} exponential(%a.1)
  %zero.1 = f32[] constant(0)
  %p.1 = f32[8,32]{1,0} pad(%e.1, %zero.1), padding=0_0x0_2
  ROOT %g.1 = f32[8,4]{1,0} gather(%p.1, %i.1), slice_sizes={8,4}
}

ENTRY %main (x.1: f32[8,30], i.2: s32[2]) -> f32[8,4] {
  %x.1 = f32[8,30]{1,0} parameter(0)
  %i.2 = s32[2]{0} parameter(1)
  ROOT %out.1 = f32[8,4]{1,0} fusion(%x.1, %i.2), kind=kLoop, calls=%fused.1
}
""")
  )
  assert found.num_bytes == FLOAT * (2 * 8 * 4 + 2)


def test_slices_of_stacked_arrays_count_as_slices():
  def stacked(x, kernels_LxMxM):
    def layer(x, kernel):
      return jnp.tanh(x @ kernel), x

    return jax.lax.scan(layer, x, kernels_LxMxM)

  found = compiled(
    stacked, jnp.ones((ROWS, WIDTH)), jnp.ones((LAYERS, WIDTH, WIDTH))
  )
  inside = [kernel for kernel in found if kernel.times == LAYERS]
  largest = max(kernel.num_bytes for kernel in inside)
  # No kernel of a layer moves more than the product: x, a kernel, x.
  assert largest < 1.1 * FLOAT * (2 * ROWS * WIDTH + WIDTH * WIDTH)
  stacking = [k for k in inside if "dynamic_update" in k.source]
  assert sum(kernel.num_bytes for kernel in stacking) == pytest.approx(
    FLOAT * 2 * ROWS * WIDTH, rel=0.01
  )


def test_a_loop_is_counted_by_its_trips_where_cost_analysis_is_not():
  def repeated(x, kernels_LxMxM, unroll):
    def layer(x, kernel):
      return jnp.tanh(x @ kernel), None

    return jax.lax.scan(layer, x, kernels_LxMxM, unroll=unroll)[0].sum()

  arguments = jnp.ones((ROWS, WIDTH)), jnp.ones((LAYERS, WIDTH, WIDTH))
  gradient = jax.jit(jax.grad(repeated, argnums=1), static_argnums=2)
  once, scanned = (
    gradient.lower(*arguments, unroll).compile() for unroll in (LAYERS, 1)
  )
  by_hand = 3 * LAYERS * 2 * ROWS * WIDTH * WIDTH
  for program in (once, scanned):
    found = kernels.kernels(program_text.parse(program.as_text()))
    flops = sum(kernel.total_flops for kernel in found)
    # The first layer's input needs no gradient where that can be seen.
    assert flops in (by_hand, by_hand - 2 * ROWS * WIDTH * WIDTH)
  # XLA counts tanh's and additions' operations as well.
  of_xla = once.cost_analysis()["flops"]
  assert flops == pytest.approx(of_xla, rel=0.25)
  assert scanned.cost_analysis()["flops"] < 0.5 * of_xla


def test_arrays_on_the_chip_and_padding_of_a_tpu():
  found = kernels.kernels(
    program_of("""
%fused.1 (a.1: bf16[8,64]) -> bf16[8,64] {
  %a.1 = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  ROOT %n.1 = bf16[8,64]{1,0:T(8,128)(2,1)} negate(%a.1)
}

ENTRY %main (x.1: bf16[32,64]) -> bf16[8,64] {
  %x.1 = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(0)
  %s.1 = ((bf16[32,64]{1,0:T(8,128)(2,1)}), \
bf16[8,64]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%x.1), \
slice={[0:8], [0:64]}
  %d.1 = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} slice-done(%s.1)
  ROOT %out.1 = bf16[8,64]{1,0:T(8,128)(2,1)} fusion(%d.1), kind=kLoop, \
calls=%fused.1, backend_config={"window_config":{"estimated_cycles":"1275"}}
}
""")
  )
  assert [kernel.cycles for kernel in found] == [None, 1275]
  # A row of 64 takes 128 places; the slice is read, and the result written.
  assert [kernel.num_bytes for kernel in found] == [2 * 8 * 128] * 2


def test_products_that_a_tpu_writes_as_convolutions():
  found = kernels.kernels(
    program_of("""
ENTRY %main (x.1: bf16[8,6,32,16], y.1: bf16[8,6,16,32]) -> bf16[8,6,32,32] {
  %x.1 = bf16[8,6,32,16]{3,2,1,0} parameter(0)
  %y.1 = bf16[8,6,32,16]{3,2,1,0} parameter(1)
  ROOT %c.1 = bf16[8,6,32,32]{3,2,1,0} convolution(%x.1, %y.1), \
window={size=8x6 stride=7x5 pad=0_0x0_0 lhs_dilate=8x6}, \
dim_labels=01bf_01oi->01bf
}
""")
  )
  # For each of 8 rows and 6 heads a product of 32 x 16 and 16 x 32.
  assert found[0].flops == 8 * 6 * 2 * 32 * 16 * 32


@pytest.mark.parametrize(
  ("attributes", "flops", "num_bytes"),
  [
    (
      'custom_call_target="tpu_custom_call", backend_config='
      '{"custom_call_config":{"cost_estimate":'
      '{"flops":"4096","transcendentals":"0"}}}',
      4096,
      2 * FLOAT * 8 * 16,
    ),
    (
      'custom_call_target="mosaic_gpu_v2", frontend_attributes='
      '{kernel_bytes="768",kernel_flops="4096"}',
      4096,
      768,
    ),
    ('custom_call_target="other"', 0, 2 * FLOAT * 8 * 16),
  ],
)
def test_a_hand_written_kernel_says_what_it_costs(attributes, flops, num_bytes):
  (found,) = kernels.kernels(
    program_of(f"""
ENTRY %main (x.1: f32[8,16]) -> f32[8,16] {{
  %x.1 = f32[8,16]{{1,0}} parameter(0)
  ROOT %k.1 = f32[8,16]{{1,0}} custom-call(%x.1), {attributes}
}}
""")
  )
  assert (found.flops, found.num_bytes) == (flops, num_bytes)


def test_single_numbers_are_no_kernels_of_a_tpu():
  program = program_of("""
ENTRY %main (x.1: u32[], y.1: u32[8]) -> u32[8] {
  %x.1 = u32[]{:T(128)} parameter(0)
  %y.1 = u32[8]{0:T(128)} parameter(1)
  %a.1 = u32[]{:T(128)} add(%x.1, %x.1)
  ROOT %b.1 = u32[8]{0:T(128)} negate(%y.1)
}
""")
  assert [kernel.name for kernel in kernels.kernels(program)] == ["a.1", "b.1"]
  assert [kernel.name for kernel in kernels.kernels(program, True)] == ["b.1"]


@pytest.mark.parametrize(
  ("shape", "opcode", "num_bytes"),
  [
    ("((f32[1024]{0}), f32[128]{0})", "reduce-scatter-start", 4096),
    ("(f32[16]{0}, f32[128]{0})", "all-gather-start", 512),
    (
      "((f32[16]{0}, f32[2]{0}), (f32[128]{0}, f32[16]{0}))",
      "all-gather-start",
      576,
    ),
    ("((f32[64]{0}), f32[64]{0})", "all-to-all-start", 256),
    ("(f32[64]{0}, f32[8]{0})", "all-reduce-start", 288),
  ],
)
def test_exchanges_that_end_later(shape, opcode, num_bytes):
  program = program_of(f"""
ENTRY %main (x.1: f32[16]) -> f32[16] {{
  %x.1 = f32[16]{{0}} parameter(0)
  ROOT %e.1 = {shape} {opcode}(%x.1), replica_groups={{{{0,1,2,3,4,5,6,7}}}}
}}
""")
  (found,) = collectives.collectives(program)
  assert found.num_bytes == num_bytes
