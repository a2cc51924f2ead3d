"""Pictures and clips: reading, preparing, and what the model sees of them."""
