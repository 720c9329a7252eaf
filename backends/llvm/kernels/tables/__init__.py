"""Functions of bytes: tables of 256 in registers, and the one that is computed instead."""
