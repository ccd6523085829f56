"""python -m verifier_check."""

import sys

from verifier_check.command import main

sys.exit(main())
