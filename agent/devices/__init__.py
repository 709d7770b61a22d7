"""QKD devices. A vendor's plugin derives from `QkdDevice`; `contract.py` checks it."""

from .base import Deliver, DeviceLink, DeviceReport, QkdDevice, Report

__all__ = ["Deliver", "DeviceLink", "DeviceReport", "QkdDevice", "Report"]
