"""Frontends: models of other tools come in here and become float or QDQ graphs.

`onnx/` and `torch/` know nothing of each other; what both say alike stands beside them, and imports
neither.
"""

if __name__ != "irc.frontends":
    raise ImportError(
        f"this package is 'irc.frontends', imported as {__name__!r}: "
        "a second copy would mean a second op registry; import it by its full name"
    )
