"""Products of two activations, as attention has them."""
