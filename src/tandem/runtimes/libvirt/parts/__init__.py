"""The parts of a domain, each from the part of an instance's spec that asks for it. Pure."""
