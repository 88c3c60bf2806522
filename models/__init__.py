"""What is stored, what crosses the wire, and what everybody must know."""
