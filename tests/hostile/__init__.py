"""Model files that attack their reader, and benign ones that look odd: written byte by byte, never loaded.

`CASES` are the 72 of the project's security notes. What an attack would do, were it believed, is to create one file,
the canary.
"""

from hostile.cases import CASES, Case

__all__ = ["CASES", "Case"]
