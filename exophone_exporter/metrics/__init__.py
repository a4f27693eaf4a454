"""Snapshots become exposition bytes, once per snapshot.

`catalog` defines every metric; `exposition` is the text format; `samples` says which lines an
account has; `inventory` renders and compresses the large part, `page` adds the live part;
`negotiation` chooses the format.
"""
