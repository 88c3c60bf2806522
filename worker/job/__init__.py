"""Running one job: from its claim, through its chain, to its settled outcome."""
