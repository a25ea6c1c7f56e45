"""From a durable structure set to a destination that has it, proved by its own answer."""
