"""The command line: `videogen COMMAND`, one file for each command."""
