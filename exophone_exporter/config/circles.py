"""India's telecom circles by the codes that are the regions of Indian numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Source: the vendor's list of telecom circles. Outside India the region is the country's code.
CIRCLES: Final[Mapping[str, str]] = {
    "AP": "Andhra Pradesh",
    "AS": "Assam",
    "BR": "Bihar",
    "DL": "Delhi",
    "GJ": "Gujarat",
    "HP": "Himachal Pradesh",
    "HR": "Haryana",
    "JK": "Jammu and Kashmir",
    "KA": "Karnataka",
    "KL": "Kerala",
    "KO": "Kolkata",
    "MH": "Maharashtra",
    "MP": "Madhya Pradesh",
    "MU": "Mumbai",
    "NE": "North East",
    "OR": "Orissa",
    "PB": "Punjab",
    "RJ": "Rajasthan",
    "TN": "Tamil Nadu",
    "UE": "Uttar Pradesh East",
    "UW": "Uttar Pradesh West",
    "WB": "West Bengal",
}
