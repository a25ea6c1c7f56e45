"""Training of the bundled model on synthetic phantoms. Needs the training extra (torch)."""
