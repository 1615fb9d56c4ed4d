"""The shapes world as a corpus of files, which a training reads like any other."""
