"""`python -m ml3_tf`, which is the command `ml3-tf`."""

import sys

from ml3_tf.commands import main

if __name__ == "__main__":
    sys.exit(main())
