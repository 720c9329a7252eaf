"""What all kernels are made of: dot products, tiles of registers, lanes, packs, copies."""
