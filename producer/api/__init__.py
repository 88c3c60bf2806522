"""The HTTP API: OpenAI's files and batches, single jobs, chat completions, webhook endpoints, health, metrics.

| module | about |
|---|---|
| app | the application and its routers, listed in one place |
| context | state shared by all requests: stores, queue, settings |
| auth, keyring | the caller and their permissions; a cache of presented keys |
| admin | keys and audit |
| admission, rooms | whether there is capacity for more work; the cached backlog |
| bodies | reading a JSON body: its size, type and shape |
| files, upload | OpenAI's files; parsing of multipart bodies while they arrive |
| blobs, sweeping | storage of uploaded bytes; cleanup after deleted files |
| errors | every error as OpenAI's error object |
"""
