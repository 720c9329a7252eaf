"""A scheduled graph as one LLVM module: its kernels, and the C interface around them."""
