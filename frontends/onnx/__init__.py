"""ONNX models become graphs.

    importer          `load`: nodes in order, each by its handler in `ops/`
    file, formats     what is read from disk, with nothing in it trusted
    structure         checks before any meaning: names, order, known operators
    inlining          functions become what they are made of
    pinned            inputs that the user gives a value
    dynamic           dynamically quantized layers become float ones over quantized weights
    control           If, Loop and Scan
    vectorized_scans  scans whose rounds know nothing of each other
    lists             sequences of tensors
    scope             values by name
    refused           why some operators have no place here
"""

from irc.frontends.onnx.importer import load

__all__ = ["load"]
