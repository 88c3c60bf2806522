"""The processes behind `run`, `up` and `worker`: the embedded queue and supervised workers."""
