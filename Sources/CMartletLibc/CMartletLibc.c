// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// All of it is in the header; a target needs a source.
#include "CMartletLibc.h"
