"""What can run a fold of an ensemble: one file for each engine, all behind `network.Network`."""
