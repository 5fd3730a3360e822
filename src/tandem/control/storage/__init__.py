"""Claims, and the volumes that they get."""
