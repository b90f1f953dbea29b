import pytest

from fit_jax.parallel.hlo import collectives

PROGRAM = """HloModule step

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%condition (p: (s32[], f32[8,4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %p = (s32[], f32[8,4]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[], f32[8,4]) parameter(0)
  %x = f32[8,4]{1,0} get-tuple-element(%p), index=1
  %y = f32[4,4]{1,0} constant({...})
  %d = f32[8,4]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %g = bf16[64,4]{1,0} all-gather(%d), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %t = (s32[], f32[8,4]) tuple(%i, %d)
}

ENTRY %main (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  %w = (s32[], f32[8,4]) while(%t), condition=%condition, body=%body
  %n = (s32[], f32[8,4]) while(%t), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %r = f32[8,4]{1,0} all-reduce(%p), replica_groups={{0,2},{1,3}}, to_apply=%sum
  %s = f32[2,4]{1,0} reduce-scatter(%p), replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%sum
  %c = f32[8,4]{1,0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}
  ROOT %o = f32[8,4]{1,0} add(%p, %r)
}
"""


def test_collectives_count_loops_and_know_their_groups():
    found = {c.kind + str(c.times): c for c in collectives(PROGRAM, 8)}
    gather = found["all-gather8"]  # five trips by the condition, three as noted
    assert gather.group == (0, 1, 2, 3)
    assert gather.bytes == 64 * 4 * 2
    assert gather.wire == pytest.approx(64 * 4 * 2 * 3 / 4 * 8)
    reduce = found["all-reduce1"]
    assert reduce.group == (0, 2)
    assert reduce.wire == 2 * 0.5 * 8 * 4 * 4
    scatter = found["reduce-scatter1"]
    assert scatter.group == (0, 1, 2, 3)
    assert scatter.bytes == 4 * 2 * 4 * 4  # of the whole operand
    assert found["collective-permute1"].wire == 8 * 4 * 4
