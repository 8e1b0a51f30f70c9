"""Noise schedules, one sampling loop, reproducible noise. Imports torch only."""
