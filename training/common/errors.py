"""Mistakes of a person, told apart from mistakes of a programmer."""


class UserError(Exception):
    """One line that names the value and the cure; the entry points print it and exit with 2."""
