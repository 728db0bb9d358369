"""`python run.py --model models/500m-256 --input-image images/img1.jpg`: the same as `cat2dog run`."""

import sys

from cli.main import main

sys.exit(main(["run", *sys.argv[1:]]))
