"""Expressions as LLVM's instructions, on scalars and on vectors."""
