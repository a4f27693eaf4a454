"""Snapshots become exposition bytes, once per snapshot.

`table` defines every metric; `exposition` is the text format; `series` says which lines an account
has; `page` puts them together, compresses and caches them; `negotiation` chooses the format.
"""
