"""The web page: what runs, why it waits, and the story of each job.

Pages are rendered on the server and readable without JavaScript. They show the same objects as the HTTP API.
"""
