"""Versions of the same pictures side by side: matched by name, measured, and laid out as one page or sheet."""
