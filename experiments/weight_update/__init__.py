"""Is in-context learning a weight update? The ladder over models, tasks, shots and seeds."""
