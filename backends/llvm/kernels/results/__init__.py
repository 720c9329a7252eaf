"""What follows products: the elementwise tail, and how words become bytes."""
