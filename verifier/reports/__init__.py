"""What a person looks at, a file for each verb, for Python callers as for the command line.

Every verb's file has `shown(result)`, what a terminal shows (rich renderables, in order). Where there is something to
keep, `write(result, folder)` writes figures and CSV files and returns their paths; where a result can contradict
itself, `problems(result)` yields the sentences for which the command line exits with status 1. Reports hold no logic of
their own, and set no backend of matplotlib.
"""
