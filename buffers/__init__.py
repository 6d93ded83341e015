"""What waits between two stages, and which item is read next."""
