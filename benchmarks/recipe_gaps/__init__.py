"""What `benchmarks.recipes` asks, runs and shows."""
