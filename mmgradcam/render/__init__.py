"""Explanations drawn: heat maps, panels, animations and pages."""
