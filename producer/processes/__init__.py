"""The processes behind `run`, `up` and `worker`: the embedded queue and workers that are kept alive."""
