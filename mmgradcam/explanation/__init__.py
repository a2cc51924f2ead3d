"""`Explanation`: maps with their labels and scores, as data."""

from mmgradcam.explanation.explanation import Explanation
from mmgradcam.explanation.metadata import FAIL, PASS, WEAK, Metadata, SanityResult

__all__ = ["FAIL", "PASS", "WEAK", "Explanation", "Metadata", "SanityResult"]
