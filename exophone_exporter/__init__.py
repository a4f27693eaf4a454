"""Prometheus exporter for Exotel ExoPhones."""

__version__ = "0.1.0"
