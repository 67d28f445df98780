"""Launchers: a step is started as a process or as a pod."""
