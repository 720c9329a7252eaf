"""3x3 convolutions by minimal filtering, exact in integers."""
