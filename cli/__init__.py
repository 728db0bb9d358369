"""The `cat2dog` command: arguments in, calls into the rooms, errors and progress out."""
