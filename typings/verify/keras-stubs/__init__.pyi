# For `pyright --verifytypes` alone, which reads no code of packages without `py.typed`, and calls each class unknown
# whose base class it has not read. So these name the classes of Keras that classes of ml3_tf derive from.
from typing import Any

from keras import callbacks as callbacks
from keras import layers as layers
from keras import losses as losses
from keras import saving as saving

class Model:
    def __getattr__(self, name: str) -> Any: ...

def __getattr__(name: str) -> Any: ...
