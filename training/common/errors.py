"""Mistakes of a person, told apart from mistakes of a programmer."""


class UserError(Exception):
    """A mistake of the person at the keyboard: one line that names the value and the cure.

    The entry points print the line and exit with 2; any other exception keeps its traceback.
    """
