"""Products in the text of a compiled program."""

import jax
import jax.numpy as jnp
import pytest

from relvit_jax.analysis import hlo


def compiled(function, *shapes):
  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return jax.jit(function).lower(*shapes).compile().as_text()


@pytest.mark.parametrize(
  ("sums", "shapes", "flops"),
  [
    ("ij,jk->ik", ((30, 40), (40, 50)), 2 * 30 * 40 * 50),
    ("ji,jk->ik", ((40, 30), (40, 50)), 2 * 30 * 40 * 50),
    ("bhid,bhjd->bhij", ((2, 3, 5, 7), (2, 3, 6, 7)), 2 * 2 * 3 * 5 * 6 * 7),
    ("bij,ijk->bk", ((4, 5, 6), (5, 6, 7)), 2 * 4 * 5 * 6 * 7),
  ],
)
def test_products_of_any_axes(sums, shapes, flops):
  text = compiled(lambda x, y: jnp.einsum(sums, x, y), *shapes)
  assert hlo.dot_flops(text) == flops


def test_a_gradient_has_a_product_for_each_factor():
  def loss(x, y):
    return jnp.sum((x @ y) ** 2)

  text = compiled(jax.grad(loss, (0, 1)), (30, 40), (40, 50))
  assert hlo.dot_flops(text) == 3 * 2 * 30 * 40 * 50


def test_elementwise_work_is_none():
  assert hlo.dot_flops(compiled(lambda x: jnp.exp(x) + 1, (8, 8))) == 0


CALLED = """\
HloModule example

%inner (x: f32[2,3], y: f32[3,4]) -> f32[2,4] {
  %x = f32[2,3]{1,0} parameter(0)
  %y = f32[3,4]{1,0} parameter(1)
  ROOT %d = f32[2,4]{1,0} dot(%x, %y), SUMMED
}

ENTRY %main (a: f32[2,3], b: f32[3,4]) -> f32[2,4] {
  %a = f32[2,3]{1,0} parameter(0)
  %b = f32[3,4]{1,0} parameter(1)
  %first = f32[2,4]{1,0} CALLER(%a, %b), to_apply=%inner
  %second = f32[2,4]{1,0} fusion(%a, %b), kind=kOutput, calls=%inner
  ROOT %sum = f32[2,4]{1,0} add(%first, %second)
}
""".replace("SUMMED", "lhs_contracting_dims={1}, rhs_contracting_dims={0}")


def test_what_is_called_twice_counts_twice():
  text = CALLED.replace("CALLER", "call")
  assert hlo.dot_flops(text) == 2 * (2 * 2 * 3 * 4)


def test_shapes_may_stand_beside_the_names_of_factors():
  text = CALLED.replace(
    "dot(%x, %y)", "dot(f32[2,3]{1,0} %x, f32[3,4]{1,0} %y)"
  )
  assert hlo.dot_flops(text.replace("CALLER", "call")) == 96


@pytest.mark.parametrize("operation", ["custom-call", "convolution"])
def test_what_is_not_counted_is_refused(operation):
  with pytest.raises(ValueError, match=f"the {operation} first may multiply"):
    hlo.dot_flops(CALLED.replace("CALLER", operation))


def test_a_loop_of_products_is_refused():
  def loop(x):
    return jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x)

  with pytest.raises(ValueError, match=r"the loop .* multiplies matrices"):
    hlo.dot_flops(compiled(loop, (16, 16)))


def test_other_text_is_refused():
  with pytest.raises(ValueError, match="no ENTRY computation"):
    hlo.dot_flops("module @jit_f {}")


SCOPED = """\
HloModule example

%inner (x: f32[5,2,3], y: f32[5,3,4]) -> f32[5,2,4] {
  %x = f32[5,2,3]{2,1,0} parameter(0)
  %y = f32[5,3,4]{2,1,0} parameter(1)
  %d = f32[5,2,4]{2,1,0} dot(%x, %y), lhs_batch_dims={0}, \
lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}, \
metadata={op_name="jit(f)/attention/dot_general"}
  ROOT %n = f32[5,2,4]{2,1,0} negate(%d), metadata={op_name="jit(f)/neg"}
}

ENTRY %main (a: f32[5,2,3], b: f32[5,3,4]) -> f32[5,2,4] {
  %a = f32[5,2,3]{2,1,0} parameter(0)
  %b = f32[5,3,4]{2,1,0} parameter(1)
  %both = f32[5,2,4]{2,1,0} fusion(%a, %b), kind=kOutput, calls=%inner, \
metadata={op_name="jit(f)/neg"}
  ROOT %e = f32[5,2,4]{2,1,0} exponential(%both)
}
"""


def test_what_each_instruction_does():
  found = hlo.instructions(SCOPED)
  name = "jit(f)/attention/dot_general"
  assert found["both"] == (
    "fusion",
    240,
    True,
    (name, "jit(f)/neg", name, "jit(f)/neg"),
  )
  assert found["d"] == ("dot", 240, True, (name, name))
  assert found["e"] == ("exponential", 0, False, ())


# As XLA writes what it hands to cuBLAS.
LIBRARY = """\
HloModule example

ENTRY %main (a: f32[5,2,3], b: f32[5,3,4]) -> f32[5,2,4] {
  %a = f32[5,2,3]{2,1,0} parameter(0)
  %b = f32[5,3,4]{2,1,0} parameter(1)
  %gemm = (f32[5,2,4]{2,1,0}, s8[64]{0}) custom-call(%a, %b), \
custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":\
{"alpha_real":1,"beta":0,"dot_dimension_numbers":\
{"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],\
"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]}}}
  ROOT %made = f32[5,2,4]{2,1,0} get-tuple-element(%gemm), index=0
}
"""


def test_products_of_a_gpu_s_library_count():
  assert hlo.dot_flops(LIBRARY) == 240
  assert hlo.instructions(LIBRARY)["gemm"] == ("custom-call", 240, True, ())
  flat = LIBRARY.replace('batch_dimensions":["0"]', 'batch_dimensions":[]')
  assert not hlo.instructions(flat)["gemm"].is_batched
