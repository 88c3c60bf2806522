"""The process behind the command `understudy`."""

import gc
import os
import sys
from pathlib import Path


def main() -> None:
    file = os.environ.get("UNDERSTUDY_HEALTH_FILE")
    if file and sys.argv[1:] == ["health"]:  # runs every few seconds: avoid slow imports
        from understudy.producer.processes.health_file import tell

        sys.exit(tell(Path(file)))
    gc.disable()  # until the command is imported: garbage collection takes a third of the import time
    from understudy.models.config.private_files import without_core_dumps
    from understudy.models.terminal_safe import make_logs_inert
    from understudy.producer.cli.app import app

    without_core_dumps()
    make_logs_inert()
    app()


if __name__ == "__main__":
    main()
