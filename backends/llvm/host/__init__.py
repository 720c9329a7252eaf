"""Libraries in this process: called, timed, tuned."""
