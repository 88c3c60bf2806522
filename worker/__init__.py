"""Does the work: claims tickets, calls providers, settles results."""
