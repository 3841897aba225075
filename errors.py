"""The one kind of error that is the user's to mend."""


class UserError(ValueError):
    """A value, file or folder that cannot be used; one line: the thing, what is there, what to do.

    `main.py` prints the line alone; any other exception is the program's fault and keeps its
    traceback.
    """
