"""Studies over groups of pictures and words: bias."""
