"""What the records of a run come to: one file for each command, read by the command and by `check`."""
