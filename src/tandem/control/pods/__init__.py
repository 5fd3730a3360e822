"""What a kubelet does for a Pod, and the scheduler before it, on one node."""
