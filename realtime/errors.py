"""The error that bad input raises."""


class InputError(ValueError):
    """Input that cannot be used. The message is one sentence for a person: the bad value, and what would be right."""
