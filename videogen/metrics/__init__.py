"""What is measured, on any model and on the shapes world: trials, a journal that survives a kill, shares and reports."""
