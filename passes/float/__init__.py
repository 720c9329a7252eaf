"""Any imported graph in its normal form: folded, recognised, NHWC, scales in weights.

The passes, each with the files of its rules:

    fold             constants, common subexpressions, nodes that change nothing
        identities, concats
    canonicalize     one way to write each thing, and what exporters took apart
        linear, pooling, masking, comparisons, computed_parameters
        activation_patterns, norm_patterns, expanded_norms, recurrent_patterns, gru_patterns
        quantized_cells
    layout           NHWC inside
        sink_transposes, grouping
    batch_norm       scales and offsets per channel, into weights and biases
        affine, quantized_batch_norm
    logits           what all classes have in common
    table_inputs     columns of tables in files that irc wrote
    tree_thresholds  what stands before trees
    tree_leaves      what follows a tree alone
        float32_bisection

`constants` is what all rules ask of constants; `pointwise` tells functions of one value, for what
comes after.
"""
