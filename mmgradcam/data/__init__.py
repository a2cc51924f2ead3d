"""Data with truth: rendered scenes, their captions and questions."""
