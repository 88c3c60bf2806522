"""Runs: their lines, what stands for each of them, and whether somebody is at work on one."""
