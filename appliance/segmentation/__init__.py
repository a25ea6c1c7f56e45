"""From a CT volume to masks: model packages, working grid, ensemble and rules. No network, no database, no torch."""
