from enum import IntEnum

from . import caption as caption
from . import confident as confident
from . import fused_similarity as fused_similarity
from . import graph as graph
from . import hamming as hamming
from . import ngram as ngram
from . import phash as phash
from . import rowwise as rowwise
from . import selection as selection
from . import threshold as threshold
from . import uid as uid
from . import votes as votes

class Isa(IntEnum):
    scalar = 0
    avx2 = 1
    avx512 = 2

def detected_isa() -> Isa: ...
def active_isa() -> Isa: ...
def set_active_isa(isa: Isa) -> bool: ...
def thread_count(requested: int) -> int: ...
