"""What makes an answer checkable: arithmetic that needs no trust in a solver."""
