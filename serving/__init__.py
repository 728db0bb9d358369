"""Serving: functions behind Triton, for many users; and model repositories for native Triton. No torch by itself."""
