"""The exact checker as a file: `python verifier_check.py NETWORK RUN` is `python -m verifier_check NETWORK RUN`."""

import sys

# The folder beside this file comes first among what may have this name.
from verifier_check.command import main

if __name__ == "__main__":
    sys.exit(main())
