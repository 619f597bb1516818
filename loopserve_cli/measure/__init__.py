"""What is made of measured turns, wherever they come from: ratios with intervals, a verdict, conditions on them."""
