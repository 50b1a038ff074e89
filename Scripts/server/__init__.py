# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""The checks of Scripts/check-server.py, by what they are about."""
