"""Bridges to other libraries; the only files that import them."""
