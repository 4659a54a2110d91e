"""Tables as markup: OTSL and HTML, conversions between them, and the metrics TEDS and S-TEDS."""
