"""The appliance as processes on one box: each role alone, all of them supervised, a check-up, and the demo."""
