"""The demo: the real appliance beside a small real PACS, with everything that happens on one screen."""
