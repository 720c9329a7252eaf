"""What values are on data: ranges, and what layers make of them."""
