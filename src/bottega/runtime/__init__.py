"""Devices, number formats, memory and weights: what every network needs, whatever its family."""
