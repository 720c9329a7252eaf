"""What a file is that was given as an ONNX model and is none, told by its first bytes."""

from __future__ import annotations

import io
import re
import zipfile

_KERAS = "convert it with tf2onnx: python -m tf2onnx.convert --keras"
_TORCH = "give the nn.Module to irc.from_torch, or export it to ONNX"
_STARTS: tuple[tuple[bytes, str], ...] = (
    (rb"....TFL3", "a TensorFlow Lite model: convert it with tf2onnx (--tflite)"),
    (rb"\x7fELF|!<arch>\n", "compiled code: irc run, audit and bench take a libNAME.so"),
    (rb"....ORTM", "in onnxruntime's own format: give the .onnx file that it was made from"),
    (rb"\x89HDF\r\n", f"an HDF5 file, as Keras writes them: {_KERAS}"),
    (rb".{7}\x00\{", f"weights alone (safetensors): {_TORCH}"),
    (rb"GGUF", f"weights of a language model (GGUF): {_TORCH}"),
    (rb"version https://git-lfs", "a pointer of Git LFS: git lfs pull brings the model itself"),
    (rb"\s*<(!doctype|html)", "a web page: the download went wrong"),
    (rb"\s*<\?xml", "XML, as OpenVINO's models are: give the ONNX model that it was made from"),
    (rb"\x1f\x8b", "compressed by gzip: unpack it"),
    (rb"\x80[\x02-\x05]", f"a Python pickle, which is never opened: {_TORCH}"),
    (rb"\x93NUMPY", "an array of NumPy"),
)
"""How files begin, and what they are."""


def other_format(data: bytes) -> str:
    """What the content of a file is, and what to do with it; empty where that isn't known."""
    if data.startswith(b"PK\x03\x04"):
        return _archive(data)
    known = (said for start, said in _STARTS if re.match(start, data, re.DOTALL | re.IGNORECASE))
    return next(known, "")


def _archive(data: bytes) -> str:
    """What a zip archive holds."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return "a damaged zip archive"
    if "constants.pkl" in names:
        return f"a TorchScript module: {_TORCH}"
    if "data.pkl" in names:
        return f"what torch.save wrote, weights or a pickled module: {_TORCH}"
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "a program that torch.export.save wrote: let its name end in .pt2"
    if "model.weights.h5" in names:
        return f"a Keras model: {_KERAS}"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive, as calibration data is"
    return "a zip archive: unpack it"
