"""The process behind the command `understudy`."""

import gc
import os
import sys
from pathlib import Path


def main() -> None:
    file = os.environ.get("UNDERSTUDY_HEALTH_FILE")
    if file and sys.argv[1:] == ["health"]:  # asked every few seconds: nothing that takes a second is loaded for it
        from producer.health import tell

        sys.exit(tell(Path(file)))
    gc.disable()  # what is imported stays: to look for garbage in it takes a fifth of the time until a command begins
    from models.inert import make_logs_inert
    from models.private import without_core_dumps
    from producer.cli import whole_app

    app = whole_app()
    gc.freeze()
    gc.enable()
    without_core_dumps()
    make_logs_inert()
    app()


if __name__ == "__main__":
    main()
