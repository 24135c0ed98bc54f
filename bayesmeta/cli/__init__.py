"""The command line: tables in, predictions, scores and reports out, without writing Python.

A file is a command. It parses options, calls what a user of Python can call as well, and prints lines. It imports
typer, its options and the standard library at the top, and all that needs torch or pandas inside of the function, so
that `--help` answers at once.
"""
