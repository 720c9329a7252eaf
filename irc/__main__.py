"""`python -m irc` is the command line."""

from irc.cli import main

main()
