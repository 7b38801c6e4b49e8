"""Hosts' operating systems behind `ports.Site` and `ports.Shell`: this machine, or over SSH."""
