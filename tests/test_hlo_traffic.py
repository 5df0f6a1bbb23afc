"""Bytes to and from main memory in the text of a program for a TPU."""

import pytest

from relvit_jax.analysis import hlo_traffic

# Of 16 bytes a row: x and the result are in main memory, the rest in the core.
PROGRAM = """\
HloModule example

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0:T(8,128)} parameter(0)
  %started = (f32[8,4]{1,0:T(8,128)S(1)}, f32[8,4]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %inside = f32[8,4]{1,0:T(8,128)S(1)} copy-done(%started)
  %part = ((f32[8,4]{1,0:T(8,128)}), bf16[2,4]{1,0:T(8,128)S(1)}, s32[]{:T(128)}) slice-start(%x), slice={[0:2], [0:4]}
  %piece = bf16[2,4]{1,0:T(8,128)S(1)} slice-done(%part)
  %joined = bf16[2,4]{1,0:S(1)} custom-call(%piece), custom_call_target="ConcatBitcast"
  %kept = (f32[8,4]{1,0:S(1)}, pred[8]{0}) fusion(%inside, %joined), kind=kLoop, calls=%inner
  %first = f32[8,4]{1,0:S(1)} get-tuple-element(%kept), index=0
  ROOT %sum = f32[8,4]{1,0} fusion(%first, %x), kind=kLoop, calls=%other
}
"""  # noqa: E501


def test_what_is_in_the_core_does_not_count():
  assert hlo_traffic.main_memory_bytes(PROGRAM) == {
    "copy-start": 128,  # Read from main memory; the core's side is free.
    "slice-start": 16,  # Of the source only what arrives.
    "fusion": 8 + 128 + 128,  # The flags, x again, and the result.
  }


def test_a_loop_and_a_text_without_a_program_are_refused():
  looping = PROGRAM.replace("fusion(%first", "while(%first")
  with pytest.raises(ValueError, match="the loop sum turns is not known"):
    hlo_traffic.main_memory_bytes(looping)
  with pytest.raises(ValueError, match="no ENTRY computation"):
    hlo_traffic.main_memory_bytes("HloModule example")
