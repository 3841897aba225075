"""Training: draws, engines, run folders and the trainer that joins them."""
