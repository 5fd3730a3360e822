"""Byte streams over HTTP upgrades."""
