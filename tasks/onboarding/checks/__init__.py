"""What ``fedrisk hospital check`` looks at, one subject a module."""
