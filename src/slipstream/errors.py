"""The exceptions a user is meant to see."""


class SlipstreamError(Exception):
    """A mistake that the user can mend: says what was wrong, with what value, and what to do.

    The command line prints its message on one line, without a traceback, and exits with status 2.
    """


class Interrupted(SlipstreamError):  # noqa: N818 - like KeyboardInterrupt
    """A run was stopped by a signal, and saved first; says how to go on.

    The command line prints its message and exits with status 130, as shells expect after Ctrl-C.
    """
