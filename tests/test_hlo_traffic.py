"""Bytes that a program for a TPU reads and writes, from its text."""

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


def test_kernels_read_and_write_wherever_it_lies():
  # inside, joined, kept; first, x, the result. Moves are no kernel's.
  assert hlo_traffic.kernel_bytes(PROGRAM) == {
    "fusion": (128 + 16 + 136) + (128 + 128 + 128)
  }


PARTS = """\
HloModule example

%copied (a: u8[9000,64]) -> u8[9000,64] {
  %a = u8[9000,64]{1,0} parameter(0)
  ROOT %c = u8[9000,64]{1,0:T(8,128)} copy(%a)
}

%row (p: u8[9000,64], at: s32[]) -> f32[64] {
  %p = u8[9000,64]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %q = u8[9000,64]{1,0:T(8,128)} fusion(%p), kind=kLoop, calls=%copied
  %s = u8[1,64]{1,0} dynamic-slice(%q, %at, %at), dynamic_slice_sizes={1,64}
  ROOT %f = f32[64]{0} convert(%s)
}

%whole (p: u8[9000,64]) -> f32[] {
  %p = u8[9000,64]{1,0} parameter(0)
  %g = u8[1,64]{1,0} slice(%p), slice={[0:1], [0:64]}
  ROOT %m = f32[] reduce(%p, %g), to_apply=%max
}

%into (all: f32[100,64], one: f32[64], at: s32[]) -> f32[100,64] {
  %all = f32[100,64]{1,0} parameter(0)
  %one = f32[64]{0} parameter(1)
  %at = s32[] parameter(2)
  %b = f32[1,64]{1,0} bitcast(%one)
  ROOT %d = f32[100,64]{1,0} dynamic-update-slice(%all, %b, %at, %at)
}

ENTRY %main (x: u8[9000,64], one: f32[64], all: f32[100,64], at: s32[]) -> T {
  %x = u8[9000,64]{1,0} parameter(0)
  %one = f32[64]{0} parameter(1)
  %all = f32[100,64]{1,0} parameter(2)
  %at = s32[]{:S(6)} parameter(3)
"""


@pytest.mark.parametrize(
  ("root", "size"),
  [
    # A row of bytes, and the same in float32.
    ("f32[64]{0} fusion(%x, %at), kind=kLoop, calls=%row", 64 + 256),
    # A part is read, and then all of it.
    ("f32[]{:S(6)} fusion(%x), kind=kLoop, calls=%whole", 9_000 * 64),
    # A row, to its place; the others stay.
    ("f32[100,64]{1,0} fusion(%all, %one, %at), calls=%into", 256 + 256),
    # The same without a fusion.
    ("f32[100,64]{1,0} add(%all, %all)", 3 * 100 * 256),
    ("u8[2,64]{1,0} slice(%x), slice={[0:2], [0:64]}", 2 * 128),
  ],
)
def test_of_what_is_cut_out_or_written_into_a_part_counts(root, size):
  moved = hlo_traffic.main_memory_bytes(f"{PARTS}  ROOT %root = {root}\n}}\n")
  assert sum(moved.values()) == size


def test_an_exchange_that_is_begun_and_ended_counts_once():
  begun = (
    "  %b = (f32[64]{0}, f32[256]{0}) all-gather-start(%one), dimensions={0}\n"
    "  ROOT %e = f32[256]{0} all-gather-done(%b)\n}\n"
  )
  assert hlo_traffic.main_memory_bytes(PARTS + begun) == {
    "all-gather-start": 256 + 1024
  }


def test_what_is_changed_again_and_again_is_looked_at_once():
  """A chain of products of a value with itself: 2⁶⁰ ways through it."""
  chain = "".join(
    f"  %v{i + 1} = f32[64]{{0}} multiply(%v{i}, %v{i})\n" for i in range(60)
  )
  fused = "%f (v: f32[64]) -> f32[64] {\n  %v0 = f32[64]{0} parameter(0)\n"
  text = PARTS.replace("ENTRY", f"{fused}{chain}}}\n\nENTRY")
  root = "  ROOT %r = f32[64]{0} fusion(%one), kind=kLoop, calls=%f\n}\n"
  assert hlo_traffic.main_memory_bytes(text + root) == {"fusion": 512}


LOOP = """\
HloModule example

%turn (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %more = f32[8]{0} fusion(%x), kind=kLoop, calls=%inner
}

%until (x: f32[8]) -> pred[] {
  %x = f32[8]{0} parameter(0)
  ROOT %less = pred[] custom-call(%x)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %before = f32[8]{0} fusion(%x), kind=kLoop, calls=%inner
  ROOT %done = f32[8]{0} while(%before), condition=%until, body=%turn
}
"""


def test_of_a_loop_over_steps_one_turn_counts():
  assert hlo_traffic.main_memory_bytes(LOOP) == {"fusion": 64}
  assert hlo_traffic.main_memory_bytes(LOOP, "dispatch") == {"fusion": 64}


def test_of_another_loop_every_turn_counts():
  known = LOOP.replace(
    "body=%turn", 'body=%turn, backend_config={"known_trip_count":{"n":"5"}}'
  )
  assert hlo_traffic.main_memory_bytes(known) == {"fusion": 64 + 5 * 64}


def test_a_text_without_a_program_is_refused():
  with pytest.raises(ValueError, match="no ENTRY computation"):
    hlo_traffic.main_memory_bytes("HloModule example")
