"""The Grafana dashboards, as readable source; `grafana/generate_dashboards.py` writes their JSON.

`queries` spells selectors and de-duplicates replicas, `panels` makes panels, `layout` places them
and puts a dashboard together; `numbers`, `rental` and `exporter` are the dashboards.
"""
