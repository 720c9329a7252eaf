"""Passes: graph to graph, and the pipelines that order them."""

if __name__ != "irc.passes":
    raise ImportError(
        f"this package is 'irc.passes', imported as {__name__!r}: "
        "a second copy would mean a second op registry; import it by its full name"
    )
