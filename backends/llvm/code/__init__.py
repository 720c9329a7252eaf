"""Expressions as LLVM's instructions, on scalars and on vectors.

    functions          LLVM functions and module text
    constants          numbers of LLVM's types
    loop               counted loops, and idioms on vectors
    address            where elements lie
    ranges             intervals of expressions
    render             expressions become instructions
        rescale        equation (6) on vectors
        rounding       equation (2) on vectors of floats, at the float edge
        division       quotients and remainders
    numbers            constants that become operands, so that layers share code
    repeated           stored bytes, written over and over
    dispatch           levels of x86-64 in one library
    aarch64_constants  constants that LLVM would make with an instruction for floats
"""
