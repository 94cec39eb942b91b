"""Prefect tasks, one file per stage: thin wrappers that add retries, records and progress to the library.

No task uses Prefect's result cache. The library finds finished work by content digest: stored scores, cached latents,
a finished adapter or duel in the run's folder. The library also checks these files before use, which a cached result
would skip. The flow itself stops early when the registry knows the run's digest.

PyTorch and diffusers are imported inside the tasks that compute with them. Registering the flows, and a run
without new images, do not import them.
"""
