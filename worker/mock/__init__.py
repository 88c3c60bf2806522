"""Fake providers over real HTTP with scripted failures: `understudy mock`, and what tests and demonstrations use."""

from understudy.worker.mock.config import Fail, MockConfig
from understudy.worker.mock.server import MockServer, running_mock

__all__ = ["Fail", "MockConfig", "MockServer", "running_mock"]
