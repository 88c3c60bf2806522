"""Statements about single jobs: accepted, staged, claimed, settled, rescued and looked up."""
