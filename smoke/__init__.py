"""Commands that show the whole thing at work: built, started, used, and gone again.

Each ends with a table of what it has checked, and with exit code 0 only if all of it held.
"""
