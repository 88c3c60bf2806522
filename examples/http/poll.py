"""Submits a job and polls it like Power Automate and Logic Apps: on 202, poll `Location` again after `Retry-After`
seconds; any other status is final. Uses only the standard library.

python poll.py default "Say hello."
"""

import json
import os
import sys
import time
from http.client import HTTPResponse
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

JOBS = os.environ.get("UNDERSTUDY_URL", "http://127.0.0.1:8080") + "/v1/jobs"


def call(url: str, body: object = None) -> HTTPResponse | HTTPError:
    data = None if body is None else json.dumps(body).encode()
    try:
        return urlopen(Request(url, data, {"Content-Type": "application/json"}))
    except HTTPError as error:
        return error
    except URLError as error:
        sys.exit(f"{url} is unreachable ({error.reason}); is `understudy up` running?")


def main(model: str, prompt: str) -> None:
    answer = call(JOBS, {"model": model, "messages": [{"role": "user", "content": prompt}]})
    url = JOBS
    while answer.status == 202:
        url = urljoin(url, answer.headers["Location"])
        time.sleep(int(answer.headers["Retry-After"]))
        answer = call(url)
    body = json.load(answer)
    print(answer.status, body["choices"][0]["message"]["content"] if answer.status == 200 else body["error"]["message"])


if __name__ == "__main__":
    main(*sys.argv[1:])
