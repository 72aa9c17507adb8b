"""`python -m ml3_tf.bench`: the benchmark of losses."""

import sys

from ml3_tf.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
