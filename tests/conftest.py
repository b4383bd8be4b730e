from hypothesis import settings

# A busy machine is no reason to fail.
settings.register_profile("nni_spos", deadline=None)
settings.load_profile("nni_spos")
