"""The text of a program, taken apart."""

import pytest

from relvit_jax.analysis import hlo_text

PROGRAM = hlo_text.parse("""\
HloModule example

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b), metadata={op_name="jit(f)/add"}
}

ENTRY %main (x: f32[8,4]) -> f32[4] {
  %x = f32[8,4]{1,0:T(8,128)} parameter(0)
  %zero = f32[]{:T(128)} constant(0)
  ROOT %made = f32[4]{0} reduce(f32[8,4]{1,0:T(8,128)} %x, %zero), dimensions={0}, to_apply=%add
}
""")  # noqa: E501


def test_a_program_is_computations_of_lines():
  assert PROGRAM.entry == "main"
  assert {name: list(one) for name, one in PROGRAM.computations.items()} == {
    "add": ["a", "b", "sum"],
    "main": ["x", "zero", "made"],
  }


def test_a_line_knows_what_it_reads_and_calls():
  made = PROGRAM.computations["main"]["made"]
  assert made.operation == "reduce"
  assert made.operands == ["x", "zero"]
  assert made.called == ["add"]
  assert made.attribute("to_apply") == "add"
  assert made.op_name is None
  assert PROGRAM.computations["add"]["sum"].op_name == "jit(f)/add"


@pytest.mark.parametrize(
  ("shape", "size", "is_outside"),
  [
    ("f32[8,64]{1,0}", 2048, True),
    ("bf16[8,64]{1,0:T(8,128)(2,1)S(1)}", 1024, False),
    ("pred[5]", 5, True),
    ("s4[3]", 2, True),
    ("u32[]", 4, True),
  ],
)
def test_an_array_has_bytes_and_a_place(shape, size, is_outside):
  [array] = hlo_text.arrays(shape)
  assert (array.size, array.is_outside) == (size, is_outside)


def test_a_tuple_has_several_arrays():
  found = hlo_text.arrays("(f32[2]{0}, (s32[], bf16[3,4]{1,0:S(1)}))")
  assert [one.lengths for one in found] == [(2,), (), (3, 4)]


def test_what_is_no_program_is_refused():
  with pytest.raises(ValueError, match="no ENTRY computation"):
    hlo_text.parse("module @jit_f {}")
