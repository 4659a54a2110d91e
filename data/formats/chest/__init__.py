"""Published collections of chest X-rays with radiology reports."""
