"""GET and nothing else: bounded requests, their retries, and the walk over the pages.

Requests go to the configured origin and nowhere else; the URLs inside answers are never followed.
HTTP knowledge ends here: what leaves is ExoPhones or a PollError. From the bottom up: `answers`
(what a status means) and `walk` (the pages) are pure, `transport` is one GET on the wire, `client`
puts them together.
"""

from exophone_exporter.exotel.client import Client, Connect, ignore_page
from exophone_exporter.exotel.transport import Transport

__all__ = ["Client", "Connect", "Transport", "ignore_page"]
