"""On AMX: layers as products of tiles, one group's results finished beside the next one's."""
