"""`check`: what is right and wrong with a task."""
