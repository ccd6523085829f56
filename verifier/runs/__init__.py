"""Runs on disk: the folder, its records and witnesses, and what makes them valid."""
