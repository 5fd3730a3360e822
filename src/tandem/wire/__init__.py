"""Protocols that carry many byte streams in one connection, for both ends of it.

``spdy`` and ``spdyheaders`` are SPDY/3.1 without any I/O; ``connection`` runs it over a link;
``inbox`` is what bounds the memory of whoever receives.
"""
