"""Frontends: models of other tools come in here and become float or QDQ graphs.

`onnx/` and `torch/` know nothing of each other; what both say alike stands beside them, and imports
neither:

    builder       makes nodes, and folds what is known at import
    normal_forms  layers, pools, products as the IR has them
    volumes       three spatial axes by ops of two
    indexing      gathers and scatters by any index
    recurrences   recurrent layers, step by step
    taps          interpolation: which elements, with which weights
    patches       images sampled at points, cut into patches, put together
    roi_align     regions of an image, sampled
    deformable    convolutions whose taps move
    maxima        where a pool's maxima are
    fourier       transforms of known length
    infinities    constants that are not finite
"""

if __name__ != "irc.frontends":
    raise ImportError(
        f"this package is 'irc.frontends', imported as {__name__!r}: "
        "a second copy would mean a second op registry; import it by its full name"
    )
