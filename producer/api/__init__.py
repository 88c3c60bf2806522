"""The HTTP surface: OpenAI's files and batches, single jobs, chat completions, webhooks' endpoints, health, metrics.

| module | about |
|---|---|
| app | the application and its routers, listed in one place |
| context | what requests share: stores, queue, settings |
| auth, keyring | who asks, and what that caller may do; the keys presented lately |
| admin | keys and audit |
| admission, rooms | whether there is room for more work; what is known of it |
| bodies | reading a JSON body: its size, type and shape |
| files, upload | OpenAI's files; a multipart body taken apart while it arrives |
| blobs, sweeping | where uploaded bytes are kept; removing what deleted files held |
| errors | every error as OpenAI's error object |
"""
