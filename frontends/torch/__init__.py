"""PyTorch modules become graphs.

    importer         `load`: a program's calls in order, each by its handler in `ops/`
    program          modules and files become exported programs of few operators
    versions         what differs between versions of torch
    freeze           modules that are trained with quantization, as they stand
    integer_buffers  whole numbers that a module holds as buffers
    state            what a module keeps in attributes of Python's
    export_check     whether a program does what its module does
    export_errors    why there is no program, and what can be done
    interface        inputs, outputs and stored tensors of a program
    carried          buffers and arguments that a call changes
    regions          what a program's graph consists of
    calls            its nodes: by a handler, or by torch where all is known
    higher_order     `map`, `scan`, `while_loop`
    selected         rows that a computed mask chooses
    values, names    what nodes stand for, and what they are called
"""

from irc.frontends.torch.importer import load, load_file

__all__ = ["load", "load_file"]
