"""Watcher of `sdlora up`: sources are watched or polled, new images collected, and runs started for them."""
