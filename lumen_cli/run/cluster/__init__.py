"""A run on a Ray cluster: this process plans, records and reports, workers on the nodes make the pictures."""
