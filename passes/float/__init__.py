"""Any imported graph in its normal form: folded, recognised, NHWC, scales in weights."""
