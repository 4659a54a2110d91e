"""Published collections of chest X-rays and reports."""
