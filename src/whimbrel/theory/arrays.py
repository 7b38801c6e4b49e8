"""The array types of the simulator: one entry per draw, first axis.

D draws, S segments of guest memory in address order, K page classes.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
