"""Answers for people and programs: an HTTP API with a web page, and a chat in the terminal.

Reading order: `protocol` (what is asked), `models` (becomes requests), `scheduler` (runs them), `answers` and `replies` (what
comes back), `api` (the routes), `guard` and `connection` (what stands before them), `server`; `terminal` for people.
"""

from lumi.serve.settings import ServerSettings

__all__ = ["ServerSettings"]
