"""What is measured, kept and made of it, wherever it comes from: a run's folder, ratios with intervals, a verdict."""
