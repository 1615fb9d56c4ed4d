"""What the editing methods do to clips of the shapes world, measured: trials, a run that survives a kill, figures, a report and pictures."""
