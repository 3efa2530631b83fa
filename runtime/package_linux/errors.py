"""What building and packaging raise."""


class BuildError(Exception):
    """What went wrong, in one line."""
