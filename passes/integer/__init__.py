"""From QDQ form to integers, and what is proved of them.

The passes, each with the files that it is made of:

    unsigned        8-bit activations as u8
    integerize      QDQ form to integers
        lowering         float values, computed over integers
        conversions      the same reals, by other integers
        legalize         other operands, for an op that can't take those that are stated
        bias_headroom    coarser weights, where a bias leaves no room for their products
        author_rounding  as the arithmetic of the program's author rounds
        staircase        multipliers and shifts that step where another arithmetic does
    transposed      transposed convolutions as plain ones
    prove           no accumulator overflows
    lift_weights    nine bits of weights as eight
"""
