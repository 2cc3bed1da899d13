"""The engines' own patterns beside this package's adapters, each in the engine's environment.

`.venv-engines/beam/bin/python -m benchmarks.engines.beam`
"""
