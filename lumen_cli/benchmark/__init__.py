"""Quality and speed of models, beside the published figures."""
