from hypothesis import settings

# The same examples in every run, and none of them timed: a loaded machine must not turn a law into a lottery.
settings.register_profile("facepass", derandomize=True, deadline=None)
# For whoever changes the laws: pytest --hypothesis-profile=search
settings.register_profile("search", derandomize=False, deadline=None, database=None, max_examples=500)
settings.load_profile("facepass")
