"""What `profile_enrich` costs, beside the alternatives: one small script a question.

`python -m benchmarks` runs them all and writes `benchmarks/RESULTS.md`; `python -m benchmarks.hit` runs one of them;
`--quick` runs tiny sizes, to see that it works and not to learn figures.
"""
