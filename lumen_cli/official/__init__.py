"""The authors' own checkpoints: where they are, how they are read safely, and how they become model folders."""
