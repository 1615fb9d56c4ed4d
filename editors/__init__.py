"""Editing methods, one file each, named as its paper. May import videogen and motion_modules."""
