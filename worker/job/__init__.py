"""How one job runs: from its claim, through its chain, to the outcome that is settled."""
