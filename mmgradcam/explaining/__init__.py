"""`explain` and `compare`: arguments, one call's settings, and the call itself."""
