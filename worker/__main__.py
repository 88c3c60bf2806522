"""`python -P -m understudy.worker`: one worker process, as `understudy worker`, `up` and `run` start it."""

import gc


def main() -> None:
    gc.disable()  # imported modules stay: collecting garbage in them takes a fifth of the startup time
    from understudy.models.config.private_files import without_core_dumps
    from understudy.models.terminal_safe import make_logs_inert
    from understudy.worker.main import main as work

    gc.freeze()
    gc.enable()
    without_core_dumps()
    make_logs_inert()
    work()


if __name__ == "__main__":
    main()
