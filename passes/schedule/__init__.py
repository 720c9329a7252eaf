"""From integers to kernels in memory."""
