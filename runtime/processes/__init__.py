"""Process lifecycle: start and stop, health, the registry of instances, and threads."""
