"""Buffers between two stages: what they hold, and which item is read next."""
