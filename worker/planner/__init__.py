"""The planner: which jobs are staged next, and why the others wait."""
