from typing import Any

import numpy as np
from numpy.typing import NDArray

def count_words(data: NDArray[np.uint8], offsets: NDArray[np.signedinteger[Any]]) -> NDArray[np.float32]: ...
