"""One file a command; what they share."""


class CommandError(Exception):
  """What was typed cannot be done; the message says what can."""


class CommandStopped(Exception):  # noqa: N818
  """What a signal ended, with all that it had done saved; the message says."""


def keep_compiled() -> None:
  """Has JAX keep what the command compiles for its next start.

  Raises:
    CommandError: others may write to where it would be kept.
  """
  # Not before a command is sure to compile: it imports JAX.
  from relvit_jax import compilation_cache

  try:
    compilation_cache.enable()
  except ValueError as error:
    raise CommandError(str(error)) from error
