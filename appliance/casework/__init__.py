"""One case is one revision of one CT series on its way; this room moves it along."""
