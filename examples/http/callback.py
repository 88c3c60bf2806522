r"""A webhook receiver like that of an n8n flow: submits a job with its own address, then waits for the webhook.

pip install standardwebhooks printf '[webhooks]\nallow_networks = ["127.0.0.0/8"]\n' >> understudy.toml    (private
addresses are rejected by default) understudy up SECRET=$(understudy webhooks secret) python callback.py default "Say
hello."
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import Request, urlopen

from standardwebhooks import Webhook

JOBS = os.environ.get("UNDERSTUDY_URL", "http://127.0.0.1:8080") + "/v1/jobs"


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        event = Webhook(os.environ["SECRET"]).verify(body, dict(self.headers))
        print(json.dumps(event, indent=2))
        self.send_response(204)
        self.end_headers()


def main(model: str, prompt: str) -> None:
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    callback = f"http://127.0.0.1:{server.server_port}/done"
    job = {"model": model, "messages": [{"role": "user", "content": prompt}], "callback_url": callback}
    urlopen(Request(JOBS, json.dumps(job).encode(), {"Content-Type": "application/json"}))
    server.handle_request()


if __name__ == "__main__":
    main(*sys.argv[1:])
