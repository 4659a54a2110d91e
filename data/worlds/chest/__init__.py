"""Synthetic chest X-rays, their findings, reports and questions."""
