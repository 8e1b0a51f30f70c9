"""Training: a recipe per architecture, one loop."""
