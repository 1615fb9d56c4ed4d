"""What a user did wrong, said in one line."""


class InputError(ValueError):
    """A wrong argument, file or checkpoint.

    The message is one line and says what to do; the command line prints it after `error:` and exits with 2.
    """


def reason(problem: BaseException) -> str:
    """What another library's error says, in one line to be quoted: without the system's number, never empty."""
    told = getattr(problem, "strerror", None) or str(problem)
    return next((line.strip() for line in told.splitlines() if line.strip()), type(problem).__name__)
