"""What Tandem costs over the runtimes below it, measured side by side.

``scripts/bench`` runs all of it in a world of its own. Every figure that is claimed stands beside a
reference taken in the same run, in turn with it, because the machine's speed drifts: quote the ratio,
not the milliseconds.
"""
