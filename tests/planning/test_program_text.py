"""Programs are read with their loops and their exchanges."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from convbert_jax.planning import collectives, program_text
from convbert_jax.training import sharding

LAYERS, WIDTH = 5, 16


def total_bytes(found, kind):
  return sum(item.total_bytes for item in found if item.kind == kind)


# What a TPU's compiler writes: no trip count, comments in shapes, layouts.
TPU_LOOP = """HloModule jit_step, is_scheduled=true

%all-reduce-scatter.1 (input.1: bf16[8,64]) -> bf16[2,64] {
  %input.1 = bf16[8,64]{1,0:T(8,128)(2,1)} parameter(0)
  %sum.1 = bf16[8,64]{1,0:T(8,128)(2,1)} all-reduce(%input.1), channel_id=2, \
replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  %zero.1 = s32[] constant(0)
  ROOT %own.1 = bf16[2,64]{1,0} dynamic-slice(%sum.1, %zero.1, %zero.1)
}

%body.1 (p.1: (s32[], bf16[8,64])) -> (s32[], bf16[8,64]) {
  %p.1 = (s32[]{:T(128)}, bf16[8,64]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %x.1 = bf16[8,64]{1,0} get-tuple-element(%p.1), index=1
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %scattered.1 = bf16[2,64]{1,0} fusion(%x.1), kind=kCustom, \
calls=%all-reduce-scatter.1
  %all-gather-start.1 = (bf16[2,64]{1,0}, /*index=1*/bf16[8,64]{1,0}) \
all-gather-start(%scattered.1), channel_id=1, replica_groups=[2,4]<=[8], \
dimensions={0}, metadata={op_name="jit(step)/layers/gather"}
  %all-gather-done.1 = bf16[8,64]{1,0} all-gather-done(%all-gather-start.1)
  %step.2 = bf16[8,64]{1,0} fusion(%scattered.1), kind=kCustom, calls=%chained.1
  ROOT %t.1 = (s32[], bf16[8,64]) tuple(%i.1, %all-gather-done.1)
}

%chained.1 (p.3: bf16[2,64]) -> bf16[8,64] {
  %p.3 = bf16[2,64]{1,0} parameter(0)
  ROOT %again.1 = bf16[8,64]{1,0} all-gather(%p.3), channel_id=1, \
replica_groups=[2,4]<=[8], dimensions={0}, frontend_attributes={chain_id="9"}
}

%condition.1 (p.2: (s32[], bf16[8,64])) -> pred[] {
  %limit.1 = s32[]{:T(128)} constant(12)
  %p.2 = (s32[]{:T(128)}, bf16[8,64]{1,0}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%i.2, %limit.1), direction=LT
}

ENTRY %main.1 (x.2: bf16[8,64]) -> bf16[8,64] {
  %x.2 = bf16[8,64]{1,0} parameter(0)
  %zero.2 = s32[] constant(0)
  %start.1 = (s32[], bf16[8,64]) tuple(%zero.2, %x.2)
  %while.1 = (s32[]{:T(128)}, bf16[8,64]{1,0}) while(%start.1), \
condition=%condition.1, body=%body.1
  ROOT %out.1 = bf16[8,64]{1,0} get-tuple-element(%while.1), index=1
}
"""


def test_a_loop_of_a_tpu_is_counted_by_its_condition():
  found = collectives.collectives(program_text.parse(TPU_LOOP))
  sizes = [(item.kind, item.num_bytes, item.times) for item in found]
  assert sizes == [("reduce-scatter", 1024, 12), ("all-gather", 1024, 12)]
  assert total_bytes(found, "all-gather") == 12 * 1024
  assert total_bytes(found, "all-reduce") == 0


def test_a_loop_whose_first_iteration_was_taken_out():
  peeled = TPU_LOOP.replace(
    "%zero.2 = s32[] constant(0)",
    "%one.1 = s32[] constant(1)\n  %zero.2 = s32[] copy(%one.1)",
  )
  found = collectives.collectives(program_text.parse(peeled))
  assert [item.times for item in found] == [11, 11]


def test_a_real_program_is_counted():
  mesh = sharding.make_mesh(data=1, fsdp=8)
  split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
  whole = NamedSharding(mesh, PartitionSpec())

  def layer(x, kernel):
    kernel = jax.lax.with_sharding_constraint(kernel, whole)
    return jnp.tanh(x @ kernel), None

  program = jax.jit(
    lambda x, kernels: jax.lax.scan(layer, x, kernels)[0],
    in_shardings=(whole, split), out_shardings=whole,
  ).lower(
    jnp.ones((WIDTH, WIDTH)), jnp.ones((LAYERS, WIDTH, WIDTH))
  ).compile()  # fmt: skip
  found = collectives.collectives(program_text.parse(program.as_text()))
  assert total_bytes(found, "all-gather") == (LAYERS * WIDTH * WIDTH * 4)


@pytest.mark.parametrize(
  ("groups", "first"),
  [
    ("replica_groups={{0,1,2},{3,4,5}}", (0, 1, 2)),
    ("source_target_pairs={{0,3},{3,0}}", (0, 3, 3, 0)),
    ("replica_groups={}", tuple(range(8))),
    ("replica_groups=[4,2]<=[8]", (0, 1)),
    ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=3] {'axis_0'}", (0, 3)),
    (
      "replica_groups=mesh['axis_0'=2,'axis_1'=2,'axis_2'=3],"
      " device_ids=([4,3]T(1,0)) {'axis_0','axis_2'}",
      # 0 3 6, 9 1 4 and 7 10 2, 5 8 11 in the mesh.
      (0, 3, 6, 7, 10, 2),
    ),
  ],
)
def test_groups_in_every_notation(groups, first):
  found = collectives.first_group(f"x=1, {groups}, to_apply=%add", 8)
  assert found == first


def test_what_goes_between_slices_is_counted():
  text = """HloModule f

ENTRY %main (x.1: f32[4,8]) -> f32[4,8] {
  %x.1 = f32[4,8]{1,0} parameter(0)
  %t.1 = token[] after-all()
  %s.1 = (f32[4,8]{1,0}, u32[], token[]) send(%x.1, %t.1), channel_id=1, \
is_host_transfer=true, frontend_attributes={_xla_megascale_target=\
"{1:2,4}x{0:7}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %u.1 = (f32[4,8]{1,0}, u32[], token[]) send(%x.1, %t.1), channel_id=2, \
is_host_transfer=true
  ROOT %r.1 = f32[4,8]{1,0} negate(%x.1)
}
"""
  (found,) = collectives.collectives(program_text.parse(text))
  assert found.kind == "all-reduce between slices"
  assert (found.num_bytes, found.times) == (4 * 8 * 4, 1)
  assert found.group == (0, 8, 16)


def test_other_text_is_refused():
  with pytest.raises(ValueError, match="not the text of a compiled program"):
    program_text.parse("hello")
  endless = TPU_LOOP.replace("constant(12)", "parameter(1)")
  with pytest.raises(ValueError, match="how often while"):
    collectives.collectives(program_text.parse(endless))
