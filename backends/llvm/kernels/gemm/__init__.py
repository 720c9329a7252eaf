"""Convolutions and linear layers as matrix products of u8 activations and i8 weights."""
