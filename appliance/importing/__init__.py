"""Models from elsewhere become packages of our own: read as data, converted once, never executed."""
