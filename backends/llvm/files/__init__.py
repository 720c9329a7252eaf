"""The files of a library, for any CPU."""
