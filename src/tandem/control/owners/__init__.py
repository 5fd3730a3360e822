"""What makes Pods for its own ends: ReplicaSets, ReplicationControllers, Deployments, Jobs."""
