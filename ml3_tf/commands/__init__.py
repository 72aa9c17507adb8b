"""The command `ml3-tf`, or `python -m ml3_tf`: list, show and check losses, and check the installation.

It needs tyro, of the extra `[cli]`. The functions that find things out return data; printing is apart, so text and
`--json` say the same.

| exit code | meaning |
|---|---|
| 0 | all is well |
| 1 | a check failed, or something was not found |
| 2 | the command line is not valid |
"""

from ml3_tf.commands.command_line import main

__all__ = ["main"]
