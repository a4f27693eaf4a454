"""The vendor's API: the only package that knows its JSON and the HTTP clients.

GET and nothing else, to the configured origin; the URLs inside responses are never followed.
What leaves this package is ExoPhones or a PollError.
"""
