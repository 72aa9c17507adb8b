# The stubs that type checkers bring along know a part of TensorFlow, and refuse `x[..., :2]`. Without types of its own,
# TensorFlow is checked by running it; ml3_tf's own signatures are checked here.
from typing import Any

def __getattr__(name: str) -> Any: ...
