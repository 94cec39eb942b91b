#!/bin/sh
# Set-up of both images: a user without rights, and the pinned packages. Runs as root at build time, in /app.
set -eu

useradd --create-home --uid 10001 sdlora
mkdir -p /state
chown sdlora:sdlora /state

pip install --no-cache-dir --constraint constraints.txt --editable '.[server]'
