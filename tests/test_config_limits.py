"""The table of limits: it covers the keys, and the keys it covers exist."""

import pytest

from relvit_jax import config, config_limits

KEYS = config.kinds(config.load("cifar10"))


def test_every_limit_belongs_to_a_key():
  assert set(config_limits.LIMITS) - set(KEYS) == set()
  assert set(config_limits.OPTIONAL) - set(KEYS) == set()


def test_every_number_has_a_limit():
  numbers = {key for key, kind in KEYS.items() if kind in (int, float)}
  assert numbers - set(config_limits.LIMITS) == set()


def test_every_default_is_within_its_limit():
  made = config.load("cifar10").to_dict()
  for key, (holds, words) in config_limits.LIMITS.items():
    value = made
    for name in key.split("."):
      value = value[name]
    assert value is None or holds(value), (key, words)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-9])
def test_no_number_that_is_none_is_right(value):
  for key, kind in KEYS.items():
    if kind is float and key in config_limits.LIMITS:
      assert not config_limits.LIMITS[key][0](value), key
