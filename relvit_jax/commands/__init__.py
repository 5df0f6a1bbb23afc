"""One file a command; what they share."""


class CommandError(Exception):
  """What was typed cannot be done; the message says what can."""
