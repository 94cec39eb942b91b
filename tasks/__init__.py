"""Prefect tasks, one file per stage: thin wrappers that add retries, records and progress to the library.

No task uses Prefect's result cache. The library finds finished work by content digest (stored scores, cached latents,
a finished adapter or duel in the run's folder) and checks the files before it trusts them; a cached result would be a
second memory that looks at no file. The flow itself stops early when the registry knows the run's digest.

PyTorch and diffusers are imported inside the tasks that compute with them: registering the flows, and a run that finds
nothing new, do without.
"""
