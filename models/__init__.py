"""What is stored, what crosses the wire, and the knowledge that all packages share."""
