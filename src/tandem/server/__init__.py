"""The HTTP server: the Kubernetes API over TLS, from the store, and byte streams from the adapters.

:class:`tandem.server.app.Server` listens; :mod:`tandem.server.pki` issues its certificates. The server
knows the store and the rules of the API, and no controller: what it writes is acted on by those who
watch the store.
"""
