"""Captioned clips for training: layouts that are read, clips drawn from them, what is checked, what is encoded once.

`settings` says what is trained on, `listing` reads a layout into rows, `clips` draws batches, `check` reads everything once, `cache` encodes it.
"""
