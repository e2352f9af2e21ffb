"""How a student learns from a teacher: attribution, I(x), losses."""
