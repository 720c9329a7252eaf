"""Real models, runners for other runtimes, and honest comparisons; uses only irc's public API."""
