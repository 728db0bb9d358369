"""`python -m cli` is the `cat2dog` command."""

import sys

from cli.main import main

sys.exit(main())
