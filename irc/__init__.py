"""irc: float models become integer-only, standalone CPU libraries."""

__version__ = "0.1.0"
