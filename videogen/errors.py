"""What a user did wrong, said in one line."""


class InputError(ValueError):
    """A wrong argument, file or checkpoint.

    The message is one line and says what to do; the command line prints it after `error:` and exits with 2.
    """
