"""Backends: an integer graph becomes something that runs."""

if __name__ != "irc.backends":
    raise ImportError(
        f"this package is 'irc.backends', imported as {__name__!r}: "
        "a second copy would mean a second op registry; import it by its full name"
    )
