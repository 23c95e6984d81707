"""The one exception a user is meant to see."""


class SlipstreamError(Exception):
    """A mistake that the user can mend: says what was wrong, with what value, and what to do.

    The command line prints its message on one line, without a traceback, and exits with status 2.
    """
