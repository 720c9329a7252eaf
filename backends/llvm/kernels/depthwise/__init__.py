"""Depthwise convolutions: lanes are channels."""
