"""Groups of commands that have a file of their own; `cli.py` puts them behind `delineate`."""
