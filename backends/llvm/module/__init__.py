"""A scheduled graph as one LLVM module: its kernels, and the C interface around them.

    interface  names, tensors and memory, as C has them
    emit       kernels become functions, one per different work
    call       the calls of a network's kernels
    edge       floats in, floats out
    selftest   the golden vector inside of a library
    pool       threads inside of a library
    manifest   what a library says of itself
    build      the whole module
    header     the C header, and files for CMake and pkg-config
    gc_pause   no cycle collection meanwhile
"""
