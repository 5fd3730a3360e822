"""Containers on a CRI runtime: containerd, or CRI-O."""
