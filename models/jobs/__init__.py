"""Jobs: why they wait or are paused, their pace, and the error of a failed one."""
